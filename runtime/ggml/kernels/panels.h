// Blocks of products, and the panels of the right factor that they read.
#pragma once

#include <cstdint>

#include "gemm.h"
#include "work.h"

namespace ggml_delegate {

// A block of a product is of at most so many rows, and so much of k.
inline constexpr int64_t kBlockRows = 132;
inline constexpr int64_t kBlockDepth = 768;
inline constexpr int64_t kDepthGrain = 32;  // at multiples of which they start along k

// Some rows, and a part of k.
struct GemmBlock {
  Range rows;
  Range depth;
  const float* left;  // the first row's elements at depth.first
  int64_t left_stride;

  int64_t row_count() const { return rows.last - rows.first; }
  int64_t depth_count() const { return depth.last - depth.first; }
  bool starts() const { return depth.first == 0; }  // else it is added to what is in the result
};

// The part of the right factor that a group of tiles reads.
struct Panels {
  const void* data;  // of float32, or of the halves that reads_halves() is about
  int64_t step;      // between rows of a panel
  int64_t stride;    // between panels
};

// Rows whose sums, of one panel, fit the registers of any instruction set.
#if defined(__AVX__) || defined(__aarch64__)
inline constexpr int kFewHalfRows = 4;
#else
inline constexpr int kFewHalfRows = 3;
#endif

// Whether so many rows read half-precision panels as they are: to expand them takes longer.
bool reads_halves(const RightFactor& right, int64_t rows);

// Panels first .. first + count at k0 .. k0 + depth, for so many rows: in place where they can be
// read so, else in `space`, of count * depth * kPanelWidth elements.
Panels prepare_right(const Gemm& op, int64_t rows, int64_t first, int64_t count, int64_t k0,
                     int64_t depth, float* space);

// Fetches what is to be read soon of a panel of integers, where few rows are multiplied and the
// weight comes from memory. Panels are streams that the processor fetches ahead itself, but not
// across pages; so far ahead as takes as long to compute for 8 bits as for 4. To the second level:
// of lines that wait for memory the first one has too few places to keep the memory busy.
template <int Bits>
inline void fetch_ahead(const int8_t* from) {
  constexpr int64_t kAhead = Bits == 8 ? 1024 : 2048;
  constexpr int kToSecondLevel = 2;
  __builtin_prefetch(from + kAhead, 0, kToSecondLevel);
}

}  // namespace ggml_delegate
