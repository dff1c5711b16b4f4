#include "channel_norm.h"

#include <vector>

#include "rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

// y = (x - center) * scale + shift, with one number each. Taking the center away first keeps what
// is left of nearly equal numbers exact.
void affine_run(const float* x, float* y, int64_t count, float center, float scale, float shift) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    simd::store(y + i, (simd::load(x + i) - center) * scale + shift);
  }
  for (; i < count; ++i) y[i] = (x[i] - center) * scale + shift;
}

// The same with numbers per element; no centers: 0.
template <bool kCenters>
void affine_row(const float* x, float* y, int64_t count, const float* centers, const float* scale,
                const float* shift) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vec v = simd::load(x + i);
    if (kCenters) v -= simd::load(centers + i);
    simd::store(y + i, v * simd::load(scale + i) + simd::load(shift + i));
  }
  for (; i < count; ++i) y[i] = (x[i] - (kCenters ? centers[i] : 0.0F)) * scale[i] + shift[i];
}

// The channels [first, last) of one sample.
struct ChannelRange {
  const ChannelParams& shape;
  int64_t first;
  int64_t last;
};

// y = (x - mean[c]) * scale[c] + shift[c], in place or not; x and y are a sample.
void normalise_channels(const float* x, float* y, const ChannelRange& range, const float* mean,
                        const float* scale, const float* shift) {
  const int64_t inner = range.shape.inner;
  const int64_t first = range.first;
  if (range.shape.channels_last) {
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t at = i * range.shape.channels + first;
      affine_row<true>(x + at, y + at, range.last - first, mean + first, scale + first,
                       shift + first);
    }
    return;
  }
  for (int64_t c = first; c < range.last; ++c) {
    affine_run(x + c * inner, y + c * inner, inner, mean[c], scale[c], shift[c]);
  }
}

// totals[c] = sum of (x - mean[c])^kPower over a sample's positions, channels innermost. A strip of
// channels at a time stays in registers; blocks of positions bound the rounding error.
template <int kPower>
void strip_totals(const float* x, const ChannelRange& range, const float* mean, double* totals) {
  constexpr int64_t kBlock = 256;
  const int64_t channels = range.shape.channels;
  std::fill(totals + range.first, totals + range.last, 0.0);
  for (int64_t block = 0; block < range.shape.inner; block += kBlock) {
    const int64_t end = std::min(block + kBlock, range.shape.inner);
    for (int64_t c = range.first; c < range.last; c += kLanes) {
      const int64_t width = std::min<int64_t>(range.last - c, kLanes);
      const bool whole = width == kLanes;
      const Vec center = whole ? simd::load(mean + c) : simd::load_part(mean + c, width);
      Vec sum{};
      for (int64_t i = block; i < end; ++i) {
        const float* from = x + i * channels + c;
        const Vec v = whole ? simd::load(from) : simd::load_part(from, width);
        sum += kPower == 1 ? v : (v - center) * (v - center);
      }
      for (int64_t lane = 0; lane < width; ++lane)
        totals[c + lane] += static_cast<double>(sum[lane]);
    }
  }
}

// The same with each channel's positions in one run.
template <int kPower>
void run_totals(const float* x, const ChannelRange& range, const float* mean, double* totals) {
  const int64_t inner = range.shape.inner;
  for (int64_t c = range.first; c < range.last; ++c) {
    const float center = mean[c];
    totals[c] = simd::sum_of(x + c * inner, inner, [center](Vec v) {
      return kPower == 1 ? v : (v - center) * (v - center);
    });
  }
}

template <int kPower>
void channel_totals(const float* x, const ChannelRange& range, const float* mean, double* totals) {
  const auto kernel = range.shape.channels_last ? strip_totals<kPower> : run_totals<kPower>;
  kernel(x, range, mean, totals);
}

// Scratch for one thread; it grows to the largest number of channels seen.
struct Scratch {
  std::vector<double> totals;
  std::vector<float> mean;
  std::vector<float> scale;
  std::vector<float> shift;

  static Scratch& of_size(int64_t channels) {
    thread_local Scratch scratch;
    const auto size = static_cast<size_t>(channels);
    if (scratch.totals.size() < size) {
      scratch.totals.resize(size);
      scratch.mean.resize(size);
      scratch.scale.resize(size);
      scratch.shift.resize(size);
    }
    return scratch;
  }
};

struct GroupNorm {
  const GroupNormParams& params;
  const float* weight = nullptr;
  const float* bias = nullptr;

  // The groups [first, last) of one sample.
  void run(const float* x, float* y, int64_t first, int64_t last) const {
    const int64_t width = params.shape.channels / params.groups;
    const ChannelRange range{params.shape, first * width, last * width};
    Scratch& scratch = Scratch::of_size(params.shape.channels);
    const double count = static_cast<double>(width * params.shape.inner);
    const auto group_sum = [&](int64_t group) {
      const double* from = scratch.totals.data() + group * width;
      double sum = 0;
      for (int64_t c = 0; c < width; ++c) sum += from[c];
      return sum;
    };
    channel_totals<1>(x, range, scratch.mean.data(), scratch.totals.data());
    for (int64_t group = first; group < last; ++group) {
      const float mean = static_cast<float>(group_sum(group) / count);
      std::fill_n(scratch.mean.data() + group * width, width, mean);
    }
    channel_totals<2>(x, range, scratch.mean.data(), scratch.totals.data());
    for (int64_t group = first; group < last; ++group) {
      const float variance = static_cast<float>(group_sum(group) / count);
      const float factor = 1.0F / std::sqrt(variance + params.eps);
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        const auto i = static_cast<size_t>(c);
        scratch.scale[i] = weight != nullptr ? factor * weight[c] : factor;
        scratch.shift[i] = bias != nullptr ? bias[c] : 0.0F;
      }
    }
    normalise_channels(x, y, range, scratch.mean.data(), scratch.scale.data(),
                       scratch.shift.data());
  }
};

}  // namespace

void channel_affine_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& shape = *static_cast<const ChannelParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  const auto* scale = static_cast<const float*>(result->src[1]->data);
  const auto* shift = static_cast<const float*>(result->src[2]->data);
  auto* y = static_cast<float*>(result->data);
  // Rows have channels innermost, or belong to one channel.
  const int64_t length = shape.channels_last ? shape.channels : shape.inner;
  const Range rows = part_of(ggml_nelements(result) / std::max<int64_t>(length, 1), ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t at = row * length;
    if (shape.channels_last) {
      affine_row<false>(x + at, y + at, length, nullptr, scale, shift);
    } else {
      const int64_t c = row % shape.channels;
      affine_run(x + at, y + at, length, 0.0F, scale[c], shift[c]);
    }
  }
}

void group_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const GroupNormParams*>(userdata);
  GroupNorm norm{params};
  int next = 1;
  if (params.weight) norm.weight = static_cast<const float*>(result->src[next++]->data);
  if (params.bias) norm.bias = static_cast<const float*>(result->src[next++]->data);
  const int64_t sample = params.shape.channels * params.shape.inner;
  const Range range = part_of(params.shape.samples * params.groups, ith, nth);
  for (int64_t i = range.first; i < range.last;) {
    const int64_t at = i / params.groups * sample;
    const int64_t first = i % params.groups;
    const int64_t last = std::min(params.groups, first + range.last - i);
    norm.run(static_cast<const float*>(result->src[0]->data) + at,
             static_cast<float*>(result->data) + at, first, last);
    i += last - first;
  }
}

}  // namespace ggml_delegate
