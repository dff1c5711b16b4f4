#include "cast.h"

#include <cstdint>
#include <limits>

#include "work.h"

namespace ggml_delegate {
namespace {

int32_t to_integer(float value) {
  constexpr float kEnd = 2147483648.0F;
  if (!(value > -kEnd)) return value <= -kEnd ? std::numeric_limits<int32_t>::min() : 0;
  return value < kEnd ? static_cast<int32_t>(value) : std::numeric_limits<int32_t>::max();
}

template <typename From, typename To, typename Function>
void each(const ggml_tensor* source, ggml_tensor* result, int ith, int nth, Function function) {
  const int64_t count = ggml_nelements(result);
  const auto* from = static_cast<const From*>(source->data);
  auto* to = static_cast<To*>(result->data);
  for (int64_t i = count * ith / nth; i < count * (ith + 1) / nth; ++i) to[i] = function(from[i]);
}

template <typename From>
void cast_from(ggml_tensor* result, int ith, int nth, bool to_bool) {
  const ggml_tensor* source = result->src[0];
  if (result->type == GGML_TYPE_F32) {
    each<From, float>(source, result, ith, nth, [](From v) { return static_cast<float>(v); });
  } else if (to_bool) {
    each<From, int32_t>(source, result, ith, nth,
                        [](From v) { return static_cast<int32_t>(v != From{0}); });
  } else {
    each<From, int32_t>(source, result, ith, nth,
                        [](From v) { return to_integer(static_cast<float>(v)); });
  }
}

void widen(const ggml_tensor* source, ggml_tensor* result, int ith, int nth) {
  const Range range = part_of(ggml_nelements(result), ith, nth);
  const int64_t count = range.last - range.first;
  const auto* from = static_cast<const uint16_t*>(source->data) + range.first;
  float* to = static_cast<float*>(result->data) + range.first;
  if (source->type == GGML_TYPE_F16) {
    ggml_fp16_to_fp32_row(from, to, count);
  } else {
    ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t*>(from), to, count);
  }
}

}  // namespace

void cast_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const bool to_bool = static_cast<const CastParams*>(userdata)->to_bool;
  const ggml_tensor* source = result->src[0];
  if (source->type == GGML_TYPE_F16 || source->type == GGML_TYPE_BF16) {
    widen(source, result, ith, nth);
  } else if (source->type == GGML_TYPE_F32) {
    cast_from<float>(result, ith, nth, to_bool);
  } else {
    cast_from<int32_t>(result, ith, nth, to_bool);
  }
}

}  // namespace ggml_delegate
