#include "pairs.h"

#include <algorithm>
#include <cstring>

#include "parts.h"
#include "simd.h"

#if defined(GGD_PAIRS)
#include <immintrin.h>
#endif

namespace ggml_delegate {

#if defined(GGD_PAIRS)
namespace {

using simd::Vec;

// So many rows have sums in registers, of two panels each.
constexpr int kMostRows = 12;
constexpr int64_t kPairs = kTileDepth / 2;

inline __m512bh splat_pair(const uint16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}

inline __m512bh load_pairs(const uint16_t* from) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
}

template <int Rows, int Panels>
void multiply(const TileRun& run, const uint16_t* left, float* sums) {
  Vec products[Rows][Panels] = {};
  const uint16_t* right = run.right;
  for (int64_t step = 0; step < run.steps; ++step) {
    for (int64_t pair = 0; pair < kPairs; ++pair) {
      __m512bh columns[Panels];
#pragma GCC unroll 2
      for (int p = 0; p < Panels; ++p) {
        columns[p] = load_pairs(right + p * run.right_stride + pair * kTileDepth);
      }
#pragma GCC unroll 12
      for (int r = 0; r < Rows; ++r) {
        const __m512bh row = splat_pair(left + r * kTileDepth + 2 * pair);
#pragma GCC unroll 2
        for (int p = 0; p < Panels; ++p) {
          products[r][p] = _mm512_dpbf16_ps(products[r][p], columns[p], row);
        }
      }
    }
    left += kStepElements;
    right += kTileElements;
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < Panels; ++p) {
      simd::store(sums + r * kSumsStride + p * kPanelWidth, products[r][p]);
    }
  }
}

template <int Panels, int Rows = kMostRows>
void multiply_rows(int64_t rows, const TileRun& run, const uint16_t* left, float* sums) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return multiply_rows<Panels, Rows - 1>(rows, run, left, sums);
  }
  multiply<Rows, Panels>(run, left, sums);
}

template <int Panels>
void run_tile(const TileRun& run, const uint16_t* left, float* sums) {
  const int64_t parts = (run.height + kMostRows - 1) / kMostRows;
  for (int64_t row = 0, part = 0; part < parts; ++part) {
    const int64_t rows = (run.height - row) / (parts - part);
    multiply_rows<Panels>(rows, run, left + row * kTileDepth, sums + row * kSumsStride);
    row += rows;
  }
}

template <int Tiles, int Panels>
void run_pairs(const TileRun& run) {
  for (int64_t tile = 0; tile < Tiles; ++tile) {
    run_tile<Panels>(run, run.left + tile * run.left_stride,
                     run.sums + tile * run.height * kSumsStride);
  }
}

}  // namespace

// Intel's processors with the instruction do half as many of them as of products of float32.
bool has_fast_pairs() {
  static const bool fast = __builtin_cpu_is("amd") != 0;
  return fast;
}

TileKernel pair_kernel(int64_t tiles, int64_t panels) {
  if (tiles == 2) return panels == 2 ? run_pairs<2, 2> : run_pairs<2, 1>;
  return panels == 2 ? run_pairs<1, 2> : run_pairs<1, 1>;
}

#else

bool has_fast_pairs() { return false; }

#endif

}  // namespace ggml_delegate
