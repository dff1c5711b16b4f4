#include "fake_quantize.h"

#include <algorithm>
#include <cmath>

#include "rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

struct Grid {
  float scale;
  float zero_point;
};

Grid grid_of(const float* x, const FakeQuantizeParams& params) {
  Vec least{}, most{}, odd{};
  int64_t i = 0;
  for (; i + kLanes <= params.count; i += kLanes) {
    const Vec v = simd::load(x + i);
    least = simd::smaller(v, least);
    most = simd::larger(v, most);
    odd = simd::select(v != v, v, odd);
  }
  if (i < params.count) {  // the lanes behind the end are 0, which every range has
    const Vec v = simd::load_part(x + i, params.count - i);
    least = simd::smaller(v, least);
    most = simd::larger(v, most);
    odd = simd::select(v != v, v, odd);
  }
  const float low = -simd::max_lanes(-least);
  const float high = simd::max_lanes(most);
  const float scale = std::max((high - low) / (params.high - params.low), params.eps);
  const float zero_point = params.low - std::nearbyint(low / scale);
  return {scale + simd::sum_lanes(odd), std::clamp(zero_point, params.low, params.high)};
}

void round_to_grid(const float* x, float* y, int64_t count, const Grid& grid,
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
    const Grid grid = grid_of(x, params);
    round_to_grid(x + part.first, y + part.first, part.last - part.first, grid, params);
    return;
  }
  const Range rows = part_of(params.rows, ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t at = row * params.count;
    round_to_grid(x + at, y + at, params.count, grid_of(x + at, params), params);
  }
}

}  // namespace ggml_delegate
