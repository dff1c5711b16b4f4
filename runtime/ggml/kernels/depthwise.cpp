#include "depthwise.h"

#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::Vec;

constexpr int kTilePixels = 6;  // x 2 vectors of sums fill the registers
// Channels whose weights stay in the first-level cache while a row is computed.
constexpr int64_t kBlockChannels = 256;
constexpr int64_t kFewChannels = 32;

// What is fixed along one row of the output.
struct Row {
  const DepthwiseParams* params;
  const float* input;  // of this image
  const float* weight;
  const float* bias;
  float* output;        // of this row
  int64_t first_tap_y;  // taps that lie inside the image
  int64_t last_tap_y;
  int64_t y;  // of tap 0

  Windows const& windows() const { return params->windows; }
};

struct TapsX {
  int64_t first;
  int64_t last;
};

// `Pixels` neighbouring outputs from `window` on, channels c .. c + Vecs * kLanes.
template <int Pixels, int Vecs>
inline void convolve(const Row& row, int64_t window, TapsX taps, int64_t c) {
  const Windows& w = row.windows();
  const int64_t step = w.x.stride * w.channels;
  Vec sums[Pixels][Vecs];
#pragma GCC unroll 8
  for (int v = 0; v < Vecs; ++v) {
    const Vec bias = row.bias == nullptr ? Vec{} : simd::load(row.bias + c + v * simd::kLanes);
#pragma GCC unroll 8
    for (int p = 0; p < Pixels; ++p) sums[p][v] = bias;
  }
  for (int64_t ky = row.first_tap_y; ky < row.last_tap_y; ++ky) {
    const int64_t y = row.y + ky * w.y.dilation;
    const float* in = row.input + (y * w.x.in + w.x.start(window)) * w.channels + c;
    const float* weight = row.weight + ky * w.x.kernel * w.channels + c;
    for (int64_t kx = taps.first; kx < taps.last; ++kx) {
      const float* pixel = in + kx * w.x.dilation * w.channels;
      Vec factor[Vecs];
#pragma GCC unroll 8
      for (int v = 0; v < Vecs; ++v) {
        factor[v] = simd::load(weight + kx * w.channels + v * simd::kLanes);
      }
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
#pragma GCC unroll 8
        for (int v = 0; v < Vecs; ++v) {
          sums[p][v] += simd::load(pixel + p * step + v * simd::kLanes) * factor[v];
        }
      }
    }
  }
  const Vec min = simd::splat(row.params->clamp.min);
  const Vec max = simd::splat(row.params->clamp.max);
#pragma GCC unroll 8
  for (int p = 0; p < Pixels; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) {
      simd::store(row.output + (window + p) * w.channels + c + v * simd::kLanes,
                  simd::clamp(sums[p][v], min, max));
    }
  }
}

// One output of one channel: for images of fewer channels than a vector has lanes.
void convolve_one(const Row& row, int64_t window, TapsX taps, int64_t c) {
  const Windows& w = row.windows();
  float sum = row.bias == nullptr ? 0.0F : row.bias[c];
  for (int64_t ky = row.first_tap_y; ky < row.last_tap_y; ++ky) {
    const int64_t y = row.y + ky * w.y.dilation;
    for (int64_t kx = taps.first; kx < taps.last; ++kx) {
      const int64_t x = w.x.start(window) + kx * w.x.dilation;
      sum += row.input[(y * w.x.in + x) * w.channels + c] *
             row.weight[(ky * w.x.kernel + kx) * w.channels + c];
    }
  }
  sum = sum < row.params->clamp.min ? row.params->clamp.min : sum;
  row.output[window * w.channels + c] = sum > row.params->clamp.max ? row.params->clamp.max : sum;
}

template <int Pixels>
void convolve_channels(const Row& row, int64_t window, TapsX taps, int64_t begin, int64_t end) {
  constexpr int64_t kPair = 2 * simd::kLanes;
  int64_t c = begin;
  for (; c + kPair <= end; c += kPair) convolve<Pixels, 2>(row, window, taps, c);
  for (; c + simd::kLanes <= end; c += simd::kLanes) convolve<Pixels, 1>(row, window, taps, c);
  if (c == end) return;
  if (end >= simd::kLanes) {
    // The last vector overlaps with the one before it: the same results are written twice.
    convolve<Pixels, 1>(row, window, taps, end - simd::kLanes);
    return;
  }
  for (; c < end; ++c) {
    for (int p = 0; p < Pixels; ++p) convolve_one(row, window + p, taps, c);
  }
}

template <int Pixels = kTilePixels>
void convolve_pixels(const Row& row, int64_t pixels, int64_t window, int64_t begin, int64_t end) {
  if constexpr (Pixels > 1) {
    if (pixels < Pixels) return convolve_pixels<Pixels - 1>(row, pixels, window, begin, end);
  }
  convolve_channels<Pixels>(row, window, {0, row.windows().x.kernel}, begin, end);
}

void convolve_row(const Row& row, int64_t begin, int64_t end) {
  const WindowAxis& axis = row.windows().x;
  int64_t first = 0;
  int64_t last = 0;
  axis.whole_windows(first, last);
  for (int64_t window = 0; window < axis.out; ++window) {
    if (window == first) window = last;
    if (window == axis.out) break;
    TapsX taps{};
    axis.valid_taps(window, taps.first, taps.last);
    convolve_channels<1>(row, window, taps, begin, end);
  }
  // Tiles of nearly equal width.
  const int64_t tiles = (last - first + kTilePixels - 1) / kTilePixels;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t from = first + (last - first) * i / tiles;
    const int64_t to = first + (last - first) * (i + 1) / tiles;
    convolve_pixels<>(row, to - from, from, begin, end);
  }
}

}  // namespace

void depthwise_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const DepthwiseParams*>(userdata);
  const Windows& w = params.windows;
  const auto* input = static_cast<const float*>(result->src[0]->data);
  Row row{};
  row.params = &params;
  row.weight = static_cast<const float*>(result->src[1]->data);
  row.bias = params.has_bias ? static_cast<const float*>(result->src[2]->data) : nullptr;
  const int64_t rows = w.batch * w.y.out;
  // Few rows (a 1d convolution has one per image) are shared out by channels too.
  const int64_t block = rows >= 4 * nth ? kBlockChannels : kFewChannels;
  const int64_t blocks = (w.channels + block - 1) / block;
  const Range part = part_of(rows * blocks, ith, nth);
  for (int64_t i = part.first; i < part.last; ++i) {
    const int64_t image_row = i / blocks;
    const int64_t c = i % blocks * block;
    const int64_t window = image_row % w.y.out;
    row.input = input + image_row / w.y.out * w.y.in * w.x.in * w.channels;
    row.output = static_cast<float*>(result->data) + image_row * w.x.out * w.channels;
    row.y = w.y.start(window);
    w.y.valid_taps(window, row.first_tap_y, row.last_tap_y);
    convolve_row(row, c, std::min(c + block, w.channels));
  }
}

}  // namespace ggml_delegate
