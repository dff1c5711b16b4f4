// Rows of floats as sums of signed digits of 8 bits, which products of integers read.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "quantized_rows.h"

namespace ggml_delegate {

// Whether split_rows_kernel and the products of what it makes are built.
#if defined(GGD_INTEGERS_BY_FOUR)
inline constexpr bool kSplitsRows = true;
#else
inline constexpr bool kSplitsRows = false;
#endif

// With more rows, floats are faster: the products take three or four instructions for each.
inline constexpr int64_t kMostSplitRows = 2;
// Elements that share a unit.
inline constexpr int64_t kSplitBlock = 32;
inline constexpr int kMostDigits = 4;
// Digits that every block has; the product of the last one is computed where it is not 0.
inline constexpr int kFewDigits = 3;
// Products take integers of a weight without a sign, so much larger.
inline constexpr int kRaised8Bits = 128;
inline constexpr int kRaised4Bits = 8;

// The element at k is unit * (d[0][k] + d[1][k] / 2^8 + d[2][k] / 2^16 + d[3][k] / 2^24), rounded
// at the last digit.
struct SplitBlock {
  float unit;        // a power of two
  int32_t has_last;  // whether some d[3] is not 0
  int32_t minus_sums[kMostDigits];
  // minus_sums times what a weight's integers have to be raised by, to be without a sign.
  int32_t raised_sums[kMostDigits];
  float sum;  // of the elements, as the digits have them
  int8_t digits[kMostDigits][kSplitBlock];
};

// What comes before a row's blocks.
struct SplitRowHeader {
  // Whether the digits hold the row as well as floats do. They do not where an element is infinite
  // or no number, or where the magnitudes of elements lie too far apart or below kLeastSplit.
  int32_t usable;
};

inline int64_t split_row_bytes(int64_t k) {
  return static_cast<int64_t>(sizeof(SplitRowHeader)) +
         k / kSplitBlock * static_cast<int64_t>(sizeof(SplitBlock));
}

// m rows of k float32, k a multiple of kSplitBlock.
struct SplitRowsParams {
  int64_t m = 0;
  int64_t k = 0;
  int64_t offset = 0;  // of the first row in src[0], in elements
  int64_t stride = 0;  // between rows
  bool pairs = false;  // of a weight with two integers to a byte, as in QuantizeRowsParams

  bool operator==(const SplitRowsParams& other) const {
    return m == other.m && k == other.k && offset == other.offset && stride == other.stride &&
           pairs == other.pairs;
  }
};

// A ggml custom op: the result has m rows of split_row_bytes(k) bytes. `userdata` is a
// SplitRowsParams.
void split_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
