#include "pool.h"

#include <limits>

#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::Vec;

// The inputs of one window in one dimension: first, first + step, ... below last.
struct Taps {
  int64_t first;
  int64_t last;
  int64_t step;
  int64_t padded;  // how many there would be with the padding
};

Taps taps_of(const PoolParams& params, const WindowAxis& axis, int64_t pad_after, int64_t window) {
  if (params.adaptive) {
    const int64_t first = window * axis.in / axis.out;
    const int64_t last = ((window + 1) * axis.in + axis.out - 1) / axis.out;
    return {first, last, 1, last - first};
  }
  int64_t first = 0;
  int64_t last = 0;
  axis.valid_taps(window, first, last);
  const int64_t start = axis.start(window);
  const int64_t end = std::min(start + axis.kernel, axis.in + pad_after);
  return {start + first * axis.dilation, start + last * axis.dilation, axis.dilation,
          std::max<int64_t>(end - start, 0)};
}

struct Max {
  static constexpr float kStart = -std::numeric_limits<float>::infinity();
  static Vec combine(Vec most, Vec x) { return ((x > most) | (x != x)) ? x : most; }
  static Vec finish(Vec most, float) { return most; }
};

struct Sum {
  static constexpr float kStart = 0.0F;
  static Vec combine(Vec sum, Vec x) { return sum + x; }
  static Vec finish(Vec sum, float divisor) { return sum / divisor; }
};

struct WindowOfImage {
  const float* image;
  int64_t width;
  int64_t channels;
  Taps y;
  Taps x;
  float divisor;

  template <typename Reduction, int Vecs>
  void reduce(float* to, int64_t c) const {
    Vec results[Vecs];
    for (int v = 0; v < Vecs; ++v) results[v] = simd::splat(Reduction::kStart);
    for (int64_t row = y.first; row < y.last; row += y.step) {
      for (int64_t column = x.first; column < x.last; column += x.step) {
        const float* from = image + (row * width + column) * channels + c;
#pragma GCC unroll 8
        for (int v = 0; v < Vecs; ++v) {
          results[v] = Reduction::combine(results[v], simd::load(from + v * simd::kLanes));
        }
      }
    }
    for (int v = 0; v < Vecs; ++v) {
      simd::store(to + c + v * simd::kLanes, Reduction::finish(results[v], divisor));
    }
  }

  // Channels from `c` on, fewer than a vector has.
  template <typename Reduction>
  void reduce_rest(float* to, int64_t c) const {
    const int64_t count = channels - c;
    Vec result = simd::splat(Reduction::kStart);
    for (int64_t row = y.first; row < y.last; row += y.step) {
      for (int64_t column = x.first; column < x.last; column += x.step) {
        const float* from = image + (row * width + column) * channels + c;
        result = Reduction::combine(result, simd::load_part(from, count));
      }
    }
    simd::store_part(to + c, Reduction::finish(result, divisor), count);
  }
};

template <typename Reduction>
void pool(ggml_tensor* result, int ith, int nth, const PoolParams& params) {
  const Windows& w = params.windows;
  const auto* input = static_cast<const float*>(result->src[0]->data);
  const Range part = part_of(w.batch * w.y.out * w.x.out, ith, nth);
  for (int64_t i = part.first; i < part.last; ++i) {
    WindowOfImage window{};
    window.image = input + i / w.x.out / w.y.out * w.y.in * w.x.in * w.channels;
    window.width = w.x.in;
    window.channels = w.channels;
    window.y = taps_of(params, w.y, params.pad_after_y, i / w.x.out % w.y.out);
    window.x = taps_of(params, w.x, params.pad_after_x, i % w.x.out);
    int64_t count = window.y.padded * window.x.padded;
    if (!params.count_include_pad) {
      count = (window.y.last - window.y.first) * (window.x.last - window.x.first);
    }
    window.divisor = static_cast<float>(params.divisor > 0 ? params.divisor : count);
    float* to = static_cast<float*>(result->data) + i * w.channels;
    constexpr int64_t kGroup = 4 * simd::kLanes;
    int64_t c = 0;
    for (; c + kGroup <= w.channels; c += kGroup) window.reduce<Reduction, 4>(to, c);
    for (; c + simd::kLanes <= w.channels; c += simd::kLanes) window.reduce<Reduction, 1>(to, c);
    if (c < w.channels) window.reduce_rest<Reduction>(to, c);
  }
}

}  // namespace

void max_pool_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  pool<Max>(result, ith, nth, *static_cast<const PoolParams*>(userdata));
}

void avg_pool_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  pool<Sum>(result, ith, nth, *static_cast<const PoolParams*>(userdata));
}

}  // namespace ggml_delegate
