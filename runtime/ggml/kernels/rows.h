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
    Vec sum0{}, sum1{}, sum2{}, sum3{};
    int64_t i = first;
    for (; i + 4 * kLanes <= last; i += 4 * kLanes) {
      sum0 += f(load(x + i));
      sum1 += f(load(x + i + kLanes));
      sum2 += f(load(x + i + 2 * kLanes));
      sum3 += f(load(x + i + 3 * kLanes));
    }
    for (; i + kLanes <= last; i += kLanes) sum0 += f(load(x + i));
    if (i < last) {
      const Vec rest = f(load_part(x + i, last - i));
      sum1 += select(first_lanes(last - i), rest, Vec{});
    }
    total += static_cast<double>(sum_lanes((sum0 + sum1) + (sum2 + sum3)));
  }
  return total;
}

// The largest element of a row that is not empty; what a NaN gives is not defined.
inline float max_of(const float* x, int64_t count) {
  Vec largest = splat(x[0]);
  Vec other = largest;
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const Vec v = load(x + i);
    const Vec w = load(x + i + kLanes);
    largest = larger(v, largest);
    other = larger(w, other);
  }
  largest = larger(other, largest);
  for (; i < count; i += kLanes) {
    const int64_t rest = std::min<int64_t>(count - i, kLanes);
    const Vec v = select(first_lanes(rest), load_part(x + i, rest), largest);
    largest = larger(v, largest);
  }
  return max_lanes(largest);
}

}  // namespace ggml_delegate::simd
