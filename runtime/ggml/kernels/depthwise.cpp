#include "depthwise.h"

#include "half.h"
#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::Vec;

// Channels whose weights stay in the first-level cache while a row is computed; fewer where rows
// alone would not occupy all threads.
constexpr int64_t kBlockChannels = 256;
constexpr int64_t kFewChannels = 32;
// Neighbouring outputs whose sums, with a row of taps, fill 16 registers.
constexpr int kTilePixels = 8;
constexpr int64_t kCacheLineFloats = 16;

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

  const Windows& windows() const { return params->windows; }
  // The input at tap row `ky` and column `x`, channel 0.
  const float* at(int64_t ky, int64_t x) const {
    const Windows& w = windows();
    return input + ((y + ky * w.y.dilation) * w.x.in + x) * w.channels;
  }
};

// ---- any window ---------------------------------------------------------------------------

struct TapsX {
  int64_t first;
  int64_t last;
};

// One output, channels c .. c + Vecs * kLanes.
template <int Vecs>
inline void convolve(const Row& row, int64_t window, TapsX taps, int64_t c) {
  const Windows& w = row.windows();
  Vec sums[Vecs];
#pragma GCC unroll 8
  for (int v = 0; v < Vecs; ++v) {
    sums[v] = row.bias == nullptr ? Vec{} : simd::load(row.bias + c + v * simd::kLanes);
  }
  for (int64_t ky = row.first_tap_y; ky < row.last_tap_y; ++ky) {
    const float* in = row.at(ky, w.x.start(window)) + c;
    const float* weight = row.weight + ky * w.x.kernel * w.channels + c;
    for (int64_t kx = taps.first; kx < taps.last; ++kx) {
#pragma GCC unroll 8
      for (int v = 0; v < Vecs; ++v) {
        sums[v] += simd::load(in + kx * w.x.dilation * w.channels + v * simd::kLanes) *
                   simd::load(weight + kx * w.channels + v * simd::kLanes);
      }
    }
  }
  // Read before anything is stored: the compiler cannot know that results alias neither.
  const Vec min = simd::splat(row.params->clamp.min);
  const Vec max = simd::splat(row.params->clamp.max);
  float* to = row.output + window * w.channels + c;
#pragma GCC unroll 8
  for (int v = 0; v < Vecs; ++v) {
    simd::store(to + v * simd::kLanes, simd::clamp(sums[v], min, max));
  }
}

// One output of one channel: for images of fewer channels than a vector has lanes.
void convolve_one(const Row& row, int64_t window, TapsX taps, int64_t c) {
  const Windows& w = row.windows();
  float sum = row.bias == nullptr ? 0.0F : row.bias[c];
  for (int64_t ky = row.first_tap_y; ky < row.last_tap_y; ++ky) {
    const float* in = row.at(ky, w.x.start(window)) + c;
    for (int64_t kx = taps.first; kx < taps.last; ++kx) {
      sum +=
          in[kx * w.x.dilation * w.channels] * row.weight[(ky * w.x.kernel + kx) * w.channels + c];
    }
  }
  const ClampParams& clamp = row.params->clamp;
  sum = sum < clamp.min ? clamp.min : sum;
  row.output[window * w.channels + c] = sum > clamp.max ? clamp.max : sum;
}

void convolve_row(const Row& row, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = 4 * simd::kLanes;
  const WindowAxis& axis = row.windows().x;
  for (int64_t window = 0; window < axis.out; ++window) {
    TapsX taps{};
    axis.valid_taps(window, taps.first, taps.last);
    int64_t c = begin;
    for (; c + kGroup <= end; c += kGroup) convolve<4>(row, window, taps, c);
    for (; c + simd::kLanes <= end; c += simd::kLanes) convolve<1>(row, window, taps, c);
    if (c < end && end >= simd::kLanes) {
      // The last vector overlaps with the one before it: the same results are written twice.
      convolve<1>(row, window, taps, end - simd::kLanes);
      continue;
    }
    for (; c < end; ++c) convolve_one(row, window, taps, c);
  }
}

// ---- the usual windows --------------------------------------------------------------------

// Neighbouring outputs of a row; pointers are those of channel 0.
struct Tile {
  const float* input;   // of the first tap in the first valid row of taps
  int64_t input_step;   // between rows of taps
  const float* weight;  // of the first valid row of taps
  const float* bias;
  float* output;
  int64_t tap_rows;
  int64_t channels;
  int64_t first_inside;  // inputs, counted from the first tap on, that lie inside the image
  int64_t last_inside;
  Vec min;
  Vec max;
};

Tile tile_at(const Row& row, int64_t window) {
  const Windows& w = row.windows();
  Tile tile{};
  tile.input = row.at(row.first_tap_y, w.x.start(window));
  tile.input_step = w.y.dilation * w.x.in * w.channels;
  tile.weight = row.weight + row.first_tap_y * w.x.kernel * w.channels;
  tile.bias = row.bias;
  tile.output = row.output + window * w.channels;
  tile.tap_rows = row.last_tap_y - row.first_tap_y;
  tile.channels = w.channels;
  tile.first_inside = -w.x.start(window);
  tile.last_inside = w.x.in - w.x.start(window);
  tile.min = simd::splat(row.params->clamp.min);
  tile.max = simd::splat(row.params->clamp.max);
  return tile;
}

// `Pixels` outputs of one vector of channels: each input is read once and meets every tap that
// lies on it. `Edge`: some inputs lie outside of the image.
template <int Pixels, int Taps, int Stride, bool Edge>
inline void convolve_tile(const Tile& tile, int64_t c) {
  const int64_t channels = tile.channels;
  const Vec bias = tile.bias == nullptr ? Vec{} : simd::load(tile.bias + c);
  Vec sums[Pixels];
#pragma GCC unroll 8
  for (int p = 0; p < Pixels; ++p) sums[p] = bias;
  const float* weight = tile.weight + c;
  for (int64_t ky = 0; ky < tile.tap_rows; ++ky) {
    const float* in = tile.input + ky * tile.input_step + c;
    Vec factors[Taps];
#pragma GCC unroll 8
    for (int k = 0; k < Taps; ++k, weight += channels) factors[k] = simd::load(weight);
#pragma GCC unroll 32
    for (int i = 0; i < (Pixels - 1) * Stride + Taps; ++i, in += channels) {
      if (Edge && (i < tile.first_inside || i >= tile.last_inside)) continue;
      const Vec x = simd::load(in);
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        const int tap = i - p * Stride;
        if (tap >= 0 && tap < Taps) sums[p] += x * factors[tap];
      }
    }
  }
  float* to = tile.output + c;
#pragma GCC unroll 8
  for (int p = 0; p < Pixels; ++p, to += channels) {
    simd::store(to, simd::clamp(sums[p], tile.min, tile.max));
  }
}

template <int Pixels, int Taps, int Stride, bool Edge>
void convolve_channels(const Row& row, int64_t window, int64_t begin, int64_t end) {
  const Tile tile = tile_at(row, window);
  // Of the inputs of the next tile, those in the last row are new: the caches have the others.
  const float* next = tile.input + (tile.tap_rows - 1) * tile.input_step +
                      (Pixels * Stride + Taps - Stride) * tile.channels;
  int64_t c = begin;
  for (; c + simd::kLanes <= end; c += simd::kLanes) {
    if (Stride == 1 && c % kCacheLineFloats == 0) {
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) __builtin_prefetch(next + p * tile.channels + c);
    }
    convolve_tile<Pixels, Taps, Stride, Edge>(tile, c);
  }
  if (c < end) convolve_tile<Pixels, Taps, Stride, Edge>(tile, end - simd::kLanes);
}

template <int Taps, int Stride, int Pixels = kTilePixels>
void convolve_pixels(const Row& row, Range windows, int64_t begin, int64_t end) {
  const int64_t count = windows.last - windows.first;
  if constexpr (Pixels > 1) {
    if (count < Pixels) return convolve_pixels<Taps, Stride, Pixels - 1>(row, windows, begin, end);
  }
  const WindowAxis& axis = row.windows().x;
  if (axis.start(windows.first) < 0 || axis.start(windows.last - 1) + Taps > axis.in) {
    convolve_channels<Pixels, Taps, Stride, true>(row, windows.first, begin, end);
  } else {
    convolve_channels<Pixels, Taps, Stride, false>(row, windows.first, begin, end);
  }
}

template <int Taps, int Stride>
void convolve_tiled_row(const Row& row, int64_t begin, int64_t end) {
  // Tiles of nearly equal width: a last one of a single pixel would cost as much as three.
  const int64_t count = row.windows().x.out;
  const int64_t tiles = (count + kTilePixels - 1) / kTilePixels;
  for (int64_t i = 0; i < tiles; ++i) {
    convolve_pixels<Taps, Stride>(row, {count * i / tiles, count * (i + 1) / tiles}, begin, end);
  }
}

using RowKernel = void (*)(const Row& row, int64_t begin, int64_t end);

RowKernel row_kernel(const Windows& windows) {
  const WindowAxis& axis = windows.x;
  if (axis.dilation != 1 || windows.channels < simd::kLanes) return convolve_row;
  if (axis.kernel == 3 && axis.stride == 1) return convolve_tiled_row<3, 1>;
  if (axis.kernel == 3 && axis.stride == 2) return convolve_tiled_row<3, 2>;
  if (axis.kernel == 5 && axis.stride == 1) return convolve_tiled_row<5, 1>;
  if (axis.kernel == 5 && axis.stride == 2) return convolve_tiled_row<5, 2>;
  if (axis.kernel == 7 && axis.stride == 1) return convolve_tiled_row<7, 1>;
  return convolve_row;
}

}  // namespace

void depthwise_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const DepthwiseParams*>(userdata);
  const Windows& w = params.windows;
  const auto* input = static_cast<const float*>(result->src[0]->data);
  const RowKernel kernel = row_kernel(w);
  Row row{};
  row.params = &params;
  row.weight = static_cast<const float*>(result->src[1]->data);
  row.bias = params.has_bias ? static_cast<const float*>(result->src[2]->data) : nullptr;
  const int64_t rows = w.batch * w.y.out;
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
    const int64_t end = std::min(c + block, w.channels);
    kernel(row, c, end);
    for (int64_t x = 0; x < w.x.out && params.clamp.precision != Precision::Float32; ++x) {
      simd::round_to(params.clamp.precision, row.output + x * w.channels + c, end - c);
    }
  }
}

}  // namespace ggml_delegate
