// The scale and the zero point that an activation's numbers give; the formula is in the schema.
#pragma once

#include <algorithm>
#include <cmath>

#include "fake_quantize.h"
#include "rows.h"

namespace ggml_delegate {

struct RowGrid {
  float scale;
  float zero_point;
};

// Of params.count elements. With a NaN among them, the scale is NaN.
inline RowGrid grid_of_row(const float* x, const FakeQuantizeParams& params) {
  using simd::Vec;
  Vec least{}, most{}, odd{};
  int64_t i = 0;
  for (; i + simd::kLanes <= params.count; i += simd::kLanes) {
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

}  // namespace ggml_delegate
