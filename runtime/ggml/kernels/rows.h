// Sums and extrema of contiguous rows.
#pragma once

#include <algorithm>

#include "vector_math.h"

namespace ggml_delegate::simd {

// Adds f(x[i]) over a row. Partial sums of at most 2048 elements are float, the total is double, so
// that the error does not grow with the row.
template <typename Function>
inline double sum_of(const float* x, int64_t count, Function f) {
  constexpr int64_t kBlock = 2048;
  double total = 0;
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t last = std::min(first + kBlock, count);
    Vec sums[4] = {};
    int64_t i = first;
    for (; i + 4 * kLanes <= last; i += 4 * kLanes) {
      for (int k = 0; k < 4; ++k) sums[k] += f(load(x + i + k * kLanes));
    }
    for (; i + kLanes <= last; i += kLanes) sums[0] += f(load(x + i));
    if (i < last) {
      const Vec part = f(load_part(x + i, last - i));
      for (int64_t lane = 0; lane < last - i; ++lane) sums[1][lane] += part[lane];
    }
    total += static_cast<double>(sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
  return total;
}

// The largest element of a row that is not empty; what a NaN gives is not defined.
inline float max_of(const float* x, int64_t count) {
  Vec largest[2] = {splat(x[0]), splat(x[0])};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    for (int k = 0; k < 2; ++k) {
      const Vec v = load(x + i + k * kLanes);
      largest[k] = v > largest[k] ? v : largest[k];
    }
  }
  float result = max_lanes(largest[0] > largest[1] ? largest[0] : largest[1]);
  for (; i < count; ++i) result = std::max(result, x[i]);
  return result;
}

}  // namespace ggml_delegate::simd
