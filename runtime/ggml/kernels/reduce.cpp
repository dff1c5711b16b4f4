#include "reduce.h"

#include "rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

// Sums of `width` <= kLanes columns whose elements lie `stride` apart, in blocks that keep the
// rounding error from growing with `count`.
Vec column_sums(const float* x, int64_t count, int64_t stride, int64_t width) {
  constexpr int64_t kBlock = 128;
  Vec total{};
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t last = std::min(first + kBlock, count);
    Vec sum{};
    for (int64_t i = first; i < last; ++i) {
      const float* from = x + i * stride;
      sum += width == kLanes ? simd::load(from) : simd::load_part(from, width);
    }
    total += sum;
  }
  return total;
}

}  // namespace

void reduce_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ReduceParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  const int64_t count = params.count;
  const float divisor = params.mean ? static_cast<float>(count) : 1.0F;
  if (params.inner == 1) {
    const Range rows = part_of(params.outer, ith, nth);
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const double sum = simd::sum_of(x + row * count, count, [](Vec v) { return v; });
      y[row] = static_cast<float>(sum / static_cast<double>(divisor));
    }
    return;
  }
  const int64_t blocks = (params.inner + kLanes - 1) / kLanes;
  const Range range = part_of(params.outer * blocks, ith, nth);
  for (int64_t block = range.first; block < range.last; ++block) {
    const int64_t outer = block / blocks;
    const int64_t column = block % blocks * kLanes;
    const int64_t width = std::min<int64_t>(params.inner - column, kLanes);
    const float* from = x + outer * count * params.inner + column;
    float* to = y + outer * params.inner + column;
    const Vec sum = column_sums(from, count, params.inner, width) / divisor;
    width == kLanes ? simd::store(to, sum) : simd::store_part(to, sum, width);
  }
}

}  // namespace ggml_delegate
