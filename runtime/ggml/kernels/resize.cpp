#include "resize.h"

#include <algorithm>
#include <cmath>

#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

// Of a place beyond the source's last element, that element's; so is the conversion defined.
int64_t whole_place(float place, int64_t in) {
  return place < static_cast<float>(in) ? std::min(static_cast<int64_t>(place), in - 1) : in - 1;
}

int64_t nearest(const ResizeAxis& axis, int64_t i) {
  return whole_place(std::floor(static_cast<float>(i) * axis.step), axis.in);
}

// Two neighbours in the source and the second one's weight.
struct Between {
  int64_t first;
  int64_t second;
  float weight;
};

Between between(const ResizeAxis& axis, int64_t i, bool align_corners) {
  float place = 0;
  if (align_corners) {
    place = axis.step * static_cast<float>(i);
  } else {
    place = std::max(axis.step * (static_cast<float>(i) + 0.5F) - 0.5F, 0.0F);
  }
  const int64_t first = whole_place(place, axis.in);
  const float weight = std::clamp(place - static_cast<float>(first), 0.0F, 1.0F);
  return {first, std::min(first + 1, axis.in - 1), weight};
}

// Calls run(image, y) for the result's rows that thread `ith` of `nth` makes.
template <typename Run>
void each_row(const ResizeParams& params, int ith, int nth, Run run) {
  const Range rows = part_of(params.batch * params.y.out, ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    run(row / params.y.out, row % params.y.out);
  }
}

void mix(const float* const (&corners)[4], const float (&weights)[4], float* to, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vec sum = simd::load(corners[0] + i) * weights[0];
    for (int c = 1; c < 4; ++c) sum += simd::load(corners[c] + i) * weights[c];
    simd::store(to + i, sum);
  }
  for (; i < count; ++i) {
    float sum = corners[0][i] * weights[0];
    for (int c = 1; c < 4; ++c) sum += corners[c][i] * weights[c];
    to[i] = sum;
  }
}

}  // namespace

void resize_nearest_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ResizeParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  const int64_t channels = params.channels;
  each_row(params, ith, nth, [&](int64_t image, int64_t row) {
    const float* from = x + (image * params.y.in + nearest(params.y, row)) * params.x.in * channels;
    float* to = y + (image * params.y.out + row) * params.x.out * channels;
    for (int64_t column = 0; column < params.x.out; ++column) {
      simd::copy(from + nearest(params.x, column) * channels, to + column * channels, channels);
    }
  });
}

void resize_bilinear_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ResizeParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  const int64_t channels = params.channels;
  each_row(params, ith, nth, [&](int64_t image, int64_t row) {
    const Between v = between(params.y, row, params.align_corners);
    const float* above = x + (image * params.y.in + v.first) * params.x.in * channels;
    const float* below = x + (image * params.y.in + v.second) * params.x.in * channels;
    float* to = y + (image * params.y.out + row) * params.x.out * channels;
    for (int64_t column = 0; column < params.x.out; ++column) {
      const Between h = between(params.x, column, params.align_corners);
      const float* const corners[4] = {above + h.first * channels, above + h.second * channels,
                                       below + h.first * channels, below + h.second * channels};
      const float weights[4] = {(1 - v.weight) * (1 - h.weight), (1 - v.weight) * h.weight,
                                v.weight * (1 - h.weight), v.weight * h.weight};
      mix(corners, weights, to + column * channels, channels);
    }
  });
}

}  // namespace ggml_delegate
