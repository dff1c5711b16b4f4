#include "softmax.h"

#include "rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

void scale_row(float* y, int64_t count, float scale) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) simd::store(y + i, simd::load(y + i) * scale);
  if (i < count) simd::store_part(y + i, simd::load_part(y + i, count - i) * scale, count - i);
}

// y = exp(x - largest); returns the sum. y may be x.
float exponentials(const float* x, float* y, int64_t count, float largest) {
  const Vec shift = splat(largest);
  Vec sums{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec e = simd::exp_nonpositive(simd::load(x + i) - shift);
    simd::store(y + i, e);
    sums += e;
  }
  if (i < count) {
    const Vec e = simd::exp_nonpositive(simd::load_part(x + i, count - i) - shift);
    simd::store_part(y + i, e, count - i);
    sums += simd::select(simd::first_lanes(count - i), e, Vec{});
  }
  return simd::sum_lanes(sums);
}

void softmax_row(const float* x, float* y, int64_t count) {
  const float sum = exponentials(x, y, count, simd::max_of(x, count));
  scale_row(y, count, 1.0F / sum);
}

void log_softmax_row(const float* x, float* y, int64_t count) {
  const float largest = simd::max_of(x, count);
  const double sum =
      simd::sum_of(x, count, [largest](Vec v) { return simd::exp_nonpositive(v - largest); });
  const float log_sum = static_cast<float>(std::log(sum));
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    simd::store(y + i, (simd::load(x + i) - largest) - log_sum);
  }
  for (; i < count; ++i) y[i] = (x[i] - largest) - log_sum;
}

// One column per lane, for columns whose elements lie `stride` apart. Of `width` <= kLanes columns.
template <bool kLog>
void softmax_columns(const float* x, float* y, int64_t count, int64_t stride, int64_t width) {
  const auto load = [&](const float* from) {
    return width == kLanes ? simd::load(from) : simd::load_part(from, width);
  };
  const auto store = [&](float* to, Vec v) {
    width == kLanes ? simd::store(to, v) : simd::store_part(to, v, width);
  };
  Vec largest = load(x);
  for (int64_t i = 1; i < count; ++i) {
    const Vec v = load(x + i * stride);
    largest = v > largest ? v : largest;
  }
  Vec sum{};
  for (int64_t i = 0; i < count; ++i) {
    const Vec e = simd::exp_nonpositive(load(x + i * stride) - largest);
    if (!kLog) store(y + i * stride, e);
    sum += e;
  }
  const Vec factor = 1.0F / sum;
  const Vec log_sum = simd::log(sum);
  for (int64_t i = 0; i < count; ++i) {
    if (kLog) {
      store(y + i * stride, (load(x + i * stride) - largest) - log_sum);
    } else {
      store(y + i * stride, load(y + i * stride) * factor);
    }
  }
}

}  // namespace

void softmax_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const SoftmaxParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  const int64_t count = params.count;
  if (params.inner == 1) {
    const Range rows = part_of(params.outer, ith, nth);
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const auto kernel = params.log ? log_softmax_row : softmax_row;
      kernel(x + row * count, y + row * count, count);
    }
    return;
  }
  const int64_t blocks = (params.inner + kLanes - 1) / kLanes;
  const Range range = part_of(params.outer * blocks, ith, nth);
  for (int64_t block = range.first; block < range.last; ++block) {
    const int64_t column = block % blocks * kLanes;
    const int64_t at = block / blocks * count * params.inner + column;
    const auto kernel = params.log ? softmax_columns<true> : softmax_columns<false>;
    kernel(x + at, y + at, count, params.inner, std::min<int64_t>(params.inner - column, kLanes));
  }
}

}  // namespace ggml_delegate
