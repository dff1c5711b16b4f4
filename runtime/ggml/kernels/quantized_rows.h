// Rows of activations as integers with a scale of their own, as products of integers read them.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "fake_quantize.h"

namespace ggml_delegate {

// Which instructions multiply integers and add the products up: four of 8 bits, or two of 16.
#if defined(__AVX512BW__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#define GGD_INTEGERS_BY_FOUR
inline constexpr bool kMultipliesIntegers = true;
using RowInteger = uint8_t;  // q + kRowOffset
inline constexpr int32_t kRowOffset = 128;
#elif defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
#define GGD_INTEGERS_BY_TWO
inline constexpr bool kMultipliesIntegers = true;
using RowInteger = int16_t;  // q - zero point
#else
inline constexpr bool kMultipliesIntegers = false;
using RowInteger = int8_t;
#endif

// Rows are made of so many elements at a time, and so are groups of weights.
inline constexpr int64_t kRowGrain = 8;

// What comes before a row's integers, of which the one at k stands for (q - zero_point) * scale.
struct RowHeader {
  float scale;
  int32_t zero;  // as the row's integers are stored; 0 where it is taken off already
};

inline int64_t quantized_row_bytes(int64_t k) {
  return static_cast<int64_t>(sizeof(RowHeader)) + k * static_cast<int64_t>(sizeof(RowInteger));
}

// `k`: elements of a row, a multiple of kRowGrain. `grid`: by row, of which it has as many, or of
// all elements as one. `pairs`: of a weight with two integers to a byte.
struct QuantizeRowsParams {
  FakeQuantizeParams grid;
  int64_t k = 0;
  bool pairs = false;
};

// A ggml custom op: src[0] is dense, float32; the result has rows of quantized_row_bytes(k).
// `userdata` is a QuantizeRowsParams. A row with a NaN, or an infinity, gets NaN for its scale.
void quantize_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
