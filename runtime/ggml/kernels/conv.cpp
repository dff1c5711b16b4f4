#include "conv.h"

#include "half.h"
#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::Vec;

// The left factor of a convolution as a product: row (n, oy, ox) holds the kh * kw * channels
// values under the window at (oy, ox).
struct Patches {
  const Windows& windows;
  const float* input;

  // Taps that are neighbours in memory: a whole row of the kernel, or one when dilated.
  int64_t taps_per_run() const { return windows.x.dilation == 1 ? windows.x.kernel : 1; }

  // A place in a patch: value `at` of the run of taps that starts at tap (y, x).
  struct Place {
    int64_t y;
    int64_t x;
    int64_t at;
  };

  Place place(int64_t k) const {
    const int64_t length = taps_per_run() * windows.channels;
    const int64_t tap = k / length * taps_per_run();
    return {tap / windows.x.kernel, tap % windows.x.kernel, k % length};
  }

  // Values at .. at + count of a run whose first tap lies at (row, column) of the image.
  void gather_run(const float* image, int64_t row, int64_t column, int64_t at, int64_t count,
                  float* to) const {
    const int64_t channels = windows.channels;
    const int64_t taps = taps_per_run();
    const int64_t offset = (row * windows.x.in + column) * channels;
    const bool inside = row >= 0 && row < windows.y.in;
    if (inside && column >= 0 && column + taps <= windows.x.in) {
      return simd::copy(image + (offset + at), to, count);
    }
    // Part of the run that lies inside the image.
    int64_t begin = std::clamp<int64_t>(-column, 0, taps) * channels;
    int64_t end = std::clamp<int64_t>(windows.x.in - column, 0, taps) * channels;
    begin = std::clamp(begin, at, at + count);
    end = inside ? std::clamp(end, begin, at + count) : begin;
    simd::fill(to, 0.0F, begin - at);
    if (end > begin) simd::copy(image + (offset + begin), to + (begin - at), end - begin);
    simd::fill(to + (end - at), 0.0F, at + count - end);
  }

  // `count` values of one patch from `from` on; `image` and (y, x) say where its tap 0 lies.
  void gather(const float* image, int64_t y, int64_t x, Place from, int64_t count,
              float* to) const {
    const int64_t taps = taps_per_run();
    const int64_t length = taps * windows.channels;
    while (count > 0) {
      const int64_t run = std::min(length - from.at, count);
      gather_run(image, y + from.y * windows.y.dilation, x + from.x * windows.x.dilation, from.at,
                 run, to);
      to += run;
      count -= run;
      from.at = 0;
      from.x += taps;
      if (from.x == windows.x.kernel) {
        from.x = 0;
        ++from.y;
      }
    }
  }

  static void gather_rows(const void* context, int64_t row0, int64_t rows, int64_t k0,
                          int64_t count, float* block) {
    const auto& patches = *static_cast<const Patches*>(context);
    const Windows& w = patches.windows;
    const Place from = patches.place(k0);
    int64_t ox = row0 % w.x.out;
    int64_t oy = row0 / w.x.out % w.y.out;
    int64_t n = row0 / w.x.out / w.y.out;
    for (int64_t row = 0; row < rows; ++row, block += count) {
      const float* image = patches.input + n * w.y.in * w.x.in * w.channels;
      patches.gather(image, w.y.start(oy), w.x.start(ox), from, count, block);
      if (++ox == w.x.out) {
        ox = 0;
        if (++oy == w.y.out) {
          oy = 0;
          ++n;
        }
      }
    }
  }
};

bool is_pointwise(const Windows& w) {
  return w.y.kernel == 1 && w.x.kernel == 1 && w.y.stride == 1 && w.x.stride == 1 &&
         w.y.in == w.y.out && w.x.in == w.x.out && w.y.pad == 0 && w.x.pad == 0;
}

// One pixel of a transposed convolution.
struct TransposedPixel {
  const ConvParams& params;
  const float* columns;  // of this image
  int64_t y;
  int64_t x;

  // The window whose tap `tap` lies on `at`, or -1.
  static int64_t window_over(const WindowAxis& axis, int64_t at, int64_t tap) {
    const int64_t from = at + axis.pad - tap * axis.dilation;
    if (from < 0 || from % axis.stride != 0 || from / axis.stride >= axis.out) return -1;
    return from / axis.stride;
  }

  void add_to(float* pixel) const {
    const Windows& w = params.windows;
    const int64_t channels = params.out_channels;
    for (int64_t ky = 0; ky < w.y.kernel; ++ky) {
      const int64_t oy = window_over(w.y, y, ky);
      for (int64_t kx = 0; oy >= 0 && kx < w.x.kernel; ++kx) {
        const int64_t ox = window_over(w.x, x, kx);
        if (ox < 0) continue;
        const int64_t column = ((oy * w.x.out + ox) * w.y.kernel + ky) * w.x.kernel + kx;
        const float* from = columns + column * channels;
        for (int64_t c = 0; c < channels; ++c) pixel[c] += from[c];
      }
    }
  }
};

void clamp_row(float* row, int64_t count, const ClampParams& clamp) {
  for (int64_t i = 0; i < count; ++i) {
    const float low = row[i] < clamp.min ? clamp.min : row[i];
    row[i] = low > clamp.max ? clamp.max : low;
  }
}

}  // namespace

void conv_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ConvParams*>(userdata);
  const Windows& w = params.windows;
  const auto* input = static_cast<const float*>(result->src[0]->data);
  const Patches patches{w, input};
  Gemm op;
  op.m = w.batch * w.y.out * w.x.out;
  op.n = params.out_channels;
  op.k = w.y.kernel * w.x.kernel * w.channels;
  if (is_pointwise(w)) {
    op.left.data = input;
    op.left.stride = w.channels;
  } else {
    op.left.gather = Patches::gather_rows;
    op.left.context = &patches;
  }
  op.right.type = result->src[1]->type;
  op.right.data = result->src[1]->data;
  op.result = static_cast<float*>(result->data);
  op.result_stride = params.out_channels;
  int next = 2;
  if (params.has_bias) op.bias = static_cast<const float*>(result->src[next++]->data);
  op.right.integers = params.integers.read(result->src + next);
  op.clamp = params.clamp;
  gemm(op, ith, nth);
}

void conv_transpose_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ConvParams*>(userdata);
  const Windows& w = params.windows;
  const auto* columns = static_cast<const float*>(result->src[0]->data);
  const auto* bias = params.has_bias ? static_cast<const float*>(result->src[1]->data) : nullptr;
  const int64_t channels = params.out_channels;
  const int64_t image_size = w.y.out * w.x.out * w.y.kernel * w.x.kernel * channels;
  const Range part = part_of(w.batch * w.y.in * w.x.in, ith, nth);
  for (int64_t i = part.first; i < part.last; ++i) {
    const int64_t image = i / w.x.in / w.y.in;
    float* pixel = static_cast<float*>(result->data) + i * channels;
    if (bias != nullptr) {
      simd::copy(bias, pixel, channels);
    } else {
      simd::fill(pixel, 0.0F, channels);
    }
    TransposedPixel{params, columns + image * image_size, i / w.x.in % w.y.in, i % w.x.in}.add_to(
        pixel);
    clamp_row(pixel, channels, params.clamp);
    simd::round_to(params.clamp.precision, pixel, channels);
  }
}

}  // namespace ggml_delegate
