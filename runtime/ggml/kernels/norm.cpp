#include "norm.h"

#include "rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

// y = (x - mean) * scale * weight + bias; weight and bias may be null. y may be x.
template <bool kWeight, bool kBias>
void apply(const float* x, float* y, int64_t count, float mean, float scale, const float* weight,
           const float* bias) {
  const Vec center = splat(mean);
  const Vec factor = splat(scale);
  const auto normalise = [&](Vec v, Vec w, Vec b) {
    v = (v - center) * factor;
    if (kWeight) v = v * w;
    if (kBias) v = v + b;
    return v;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec w = kWeight ? simd::load(weight + i) : Vec{};
    const Vec b = kBias ? simd::load(bias + i) : Vec{};
    simd::store(y + i, normalise(simd::load(x + i), w, b));
  }
  if (i < count) {
    const int64_t rest = count - i;
    const Vec w = kWeight ? simd::load_part(weight + i, rest) : Vec{};
    const Vec b = kBias ? simd::load_part(bias + i, rest) : Vec{};
    simd::store_part(y + i, normalise(simd::load_part(x + i, rest), w, b), rest);
  }
}

struct RowNorm {
  const RowNormParams& params;
  const float* x;
  float* y;
  const float* weight = nullptr;
  const float* bias = nullptr;

  RowNorm(ggml_tensor* result, void* userdata)
      : params(*static_cast<const RowNormParams*>(userdata)),
        x(static_cast<const float*>(result->src[0]->data)),
        y(static_cast<float*>(result->data)) {
    int next = 1;
    if (params.weight) weight = static_cast<const float*>(result->src[next++]->data);
    if (params.bias) bias = static_cast<const float*>(result->src[next++]->data);
  }
  void write(int64_t row, float mean, float scale) const {
    const int64_t at = row * params.count;
    const auto kernel = weight != nullptr
                            ? (bias != nullptr ? apply<true, true> : apply<true, false>)
                            : (bias != nullptr ? apply<false, true> : apply<false, false>);
    kernel(x + at, y + at, params.count, mean, scale, weight, bias);
  }
  Range rows(const ggml_tensor* result, int ith, int nth) const {
    return part_of(ggml_nelements(result) / std::max<int64_t>(params.count, 1), ith, nth);
  }
};

}  // namespace

void layer_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const RowNorm norm(result, userdata);
  const int64_t count = norm.params.count;
  const Range rows = norm.rows(result, ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const float* x = norm.x + row * count;
    const double sum = simd::sum_of(x, count, [](Vec v) { return v; });
    const float mean = static_cast<float>(sum / static_cast<double>(count));
    const double squares =
        simd::sum_of(x, count, [mean](Vec v) { return (v - mean) * (v - mean); });
    const float variance = static_cast<float>(squares / static_cast<double>(count));
    norm.write(row, mean, 1.0F / std::sqrt(variance + norm.params.eps));
  }
}

void rms_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const RowNorm norm(result, userdata);
  const int64_t count = norm.params.count;
  const Range rows = norm.rows(result, ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const double squares = simd::sum_of(norm.x + row * count, count, [](Vec v) { return v * v; });
    const float mean = static_cast<float>(squares / static_cast<double>(count));
    norm.write(row, 0.0F, 1.0F / std::sqrt(mean + norm.params.eps));
  }
}

}  // namespace ggml_delegate
