#include "fake_quantize.h"

#include "grid_of_rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

void round_to_grid(const float* x, float* y, int64_t count, const RowGrid& grid,
                   const FakeQuantizeParams& params) {
  const Vec factor = splat(1.0F / grid.scale);
  const Vec scale = splat(grid.scale), zero_point = splat(grid.zero_point);
  const Vec low = splat(params.low), high = splat(params.high);
  const auto rounded = [&](Vec v) {
    const Vec q = simd::round(v * factor) + zero_point;
    return (simd::clamp(q, low, high) - zero_point) * scale;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) simd::store(y + i, rounded(simd::load(x + i)));
  if (i < count) simd::store_part(y + i, rounded(simd::load_part(x + i, count - i)), count - i);
}

}  // namespace

void fake_quantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const FakeQuantizeParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  if (params.rows == 1) {  // each thread finds the range for itself
    const Range part = part_of(params.count, ith, nth, kLanes);
    const RowGrid grid = grid_of_row(x, params);
    round_to_grid(x + part.first, y + part.first, part.last - part.first, grid, params);
    return;
  }
  const Range rows = part_of(params.rows, ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t at = row * params.count;
    round_to_grid(x + at, y + at, params.count, grid_of_row(x + at, params), params);
  }
}

}  // namespace ggml_delegate
