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

// Fetches the panels that are read next, while those before them are multiplied: for few rows,
// whose weight comes from memory. Panels are read side by side, and memory is slower at several
// streams than at one; so these are fetched in the order in which they lie, as much at a time as is
// read. What follows a weight's last panel is as a rule the next weight. To the second level: of
// lines that wait for memory the first one has too few places to keep the memory busy.
class NextPanels {
 public:
  explicit NextPanels(const int8_t* first) : at_(first) {}

  void fetch(int64_t bytes) {
    constexpr int kToSecondLevel = 2;
    __builtin_prefetch(at_, 0, kToSecondLevel);
    at_ += bytes;
  }

 private:
  const int8_t* at_;
};

// Likewise the scales, or minimums, of the panels that follow: from row `row` of all panels on.
class NextScales {
 public:
  NextScales(const StoredFloats& numbers, int64_t row)
      : bytes_(numbers.row_bytes()),
        next_(static_cast<const int8_t*>(numbers.data) + row * bytes_) {}

  void fetch_row() { next_.fetch(bytes_); }

 private:
  int64_t bytes_;
  NextPanels next_;
};

}  // namespace ggml_delegate
