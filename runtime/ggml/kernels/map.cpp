#include "map.h"

#include <cmath>

#include "half.h"
#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::select;
using simd::splat;
using simd::Vec;

constexpr int64_t kGrain = 64;  // elements; no two threads write to one cache line

// dst[i] = f(src[i]) for i < count; dst may be src.
template <typename Function>
void map_run(const float* src, float* dst, int64_t count, Function f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) simd::store(dst + i, f(simd::load(src + i)));
  if (i < count) {
    simd::store_part(dst + i, f(simd::load_part(src + i, count - i)), count - i);
  }
}

// Rounds what it has just computed, part by part.
template <typename Function>
void map_parts(const float* src, float* dst, int64_t count, Precision precision, Function f) {
  if (precision == Precision::Float32) return map_run(src, dst, count, f);
  for (int64_t i = 0; i < count; i += simd::kRounded) {
    const int64_t part = std::min(count - i, simd::kRounded);
    map_run(src + i, dst + i, part, f);
    simd::round_to(precision, dst + i, part);
  }
}

// The elements [first, last) of a tensor whose rows are whole but may lie apart.
template <typename Function>
void map_rows(const ggml_tensor* src, float* dst, Range range, Precision precision, Function f) {
  const int64_t* ne = src->ne;
  int64_t i = range.first;
  while (i < range.last) {
    const int64_t row = i / ne[0];
    const int64_t column = i % ne[0];
    const auto* from = reinterpret_cast<const float*>(
        static_cast<const char*>(src->data) + row % ne[1] * src->nb[1] +
        row / ne[1] % ne[2] * src->nb[2] + row / (ne[1] * ne[2]) * src->nb[3]);
    const int64_t count = std::min(ne[0] - column, range.last - i);
    map_parts(from + column, dst + i, count, precision, f);
    i += count;
  }
}

template <typename Function>
void map(ggml_tensor* result, int ith, int nth, void* userdata, Function f) {
  const Precision precision = static_cast<const MapParams*>(userdata)->precision;
  const ggml_tensor* src = result->src[0];
  auto* dst = static_cast<float*>(result->data);
  const Range range = part_of(ggml_nelements(result), ith, nth, kGrain);
  if (ggml_is_contiguous(src)) {
    const auto* from = static_cast<const float*>(src->data);
    map_parts(from + range.first, dst + range.first, range.last - range.first, precision, f);
  } else {
    map_rows(src, dst, range, precision, f);
  }
}

template <Vec (*Function)(Vec)>
void unary(ggml_tensor* result, int ith, int nth, void* userdata) {
  map(result, ith, nth, userdata, [](Vec x) { return Function(x); });
}

Vec negate(Vec x) { return -x; }
Vec rsqrt(Vec x) { return 1.0F / simd::sqrt(x); }
Vec relu(Vec x) { return select(x < 0.0F, Vec{}, x); }  // a NaN stays
Vec silu(Vec x) { return x / (1.0F + simd::exp(-x)); }
Vec relu6(Vec x) { return simd::clamp(x, splat(0.0F), splat(6.0F)); }
Vec hard_sigmoid(Vec x) { return relu6(x + 3.0F) * (1.0F / 6.0F); }
Vec hard_swish(Vec x) { return x * relu6(x + 3.0F) * (1.0F / 6.0F); }
Vec reciprocal(Vec x) { return 1.0F / x; }
Vec square(Vec x) { return x * x; }
Vec cube(Vec x) { return x * x * x; }

// log(1 + e^x), without overflow.
Vec softplus(Vec x) {
  return select(x < 0.0F, Vec{}, x) + simd::log1p_unit(simd::exp_nonpositive(-simd::abs(x)));
}
Vec log_sigmoid(Vec x) { return -softplus(-x); }

// x tanh(softplus(x)); with e = e^x, tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2).
Vec mish(Vec x) {
  const Vec e = simd::exp(select(x > 20.0F, splat(20.0F), x));  // beyond, the ratio rounds to 1
  const Vec n = e * (e + 2.0F);
  return x * (n / (n + 2.0F));
}

}  // namespace

ggml_custom_op_t unary_kernel(ir::UnaryKind kind) {
  switch (kind) {
    case ir::UnaryKind_Neg:
      return unary<negate>;
    case ir::UnaryKind_Abs:
      return unary<simd::abs>;
    case ir::UnaryKind_Sqrt:
      return unary<simd::sqrt>;
    case ir::UnaryKind_Rsqrt:
      return unary<rsqrt>;
    case ir::UnaryKind_Exp:
      return unary<simd::exp>;
    case ir::UnaryKind_Log:
      return unary<simd::log>;
    case ir::UnaryKind_Relu:
      return unary<relu>;
    case ir::UnaryKind_Sigmoid:
      return unary<simd::sigmoid>;
    case ir::UnaryKind_Tanh:
      return unary<simd::tanh>;
    case ir::UnaryKind_Silu:
      return unary<silu>;
    case ir::UnaryKind_HardSigmoid:
      return unary<hard_sigmoid>;
    case ir::UnaryKind_HardSwish:
      return unary<hard_swish>;
    case ir::UnaryKind_Reciprocal:
      return unary<reciprocal>;
    case ir::UnaryKind_Square:
      return unary<square>;
    case ir::UnaryKind_Cube:
      return unary<cube>;
    case ir::UnaryKind_GeluErf:
      return unary<simd::gelu_erf>;
    case ir::UnaryKind_GeluTanh:
      return unary<simd::gelu_tanh>;
    case ir::UnaryKind_Sin:
      return unary<simd::sin>;
    case ir::UnaryKind_Cos:
      return unary<simd::cos>;
    case ir::UnaryKind_Floor:
      return unary<simd::floor>;
    case ir::UnaryKind_Ceil:
      return unary<simd::ceil>;
    case ir::UnaryKind_Round:
      return unary<simd::round>;
    case ir::UnaryKind_Trunc:
      return unary<simd::trunc>;
    case ir::UnaryKind_Erf:
      return unary<simd::erf>;
    case ir::UnaryKind_Expm1:
      return unary<simd::expm1>;
    case ir::UnaryKind_Log1p:
      return unary<simd::log1p>;
    case ir::UnaryKind_LogSigmoid:
      return unary<log_sigmoid>;
    case ir::UnaryKind_Mish:
      return unary<mish>;
  }
  return nullptr;
}

void affine_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  map(result, ith, nth, userdata, [p](Vec x) { return x * p.a + p.b; });
}

void clamp_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  map(result, ith, nth, userdata, [p](Vec x) { return simd::clamp(x, splat(p.a), splat(p.b)); });
}

void leaky_relu_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  map(result, ith, nth, userdata, [p](Vec x) { return select(x > 0.0F, x, x * p.a); });
}

void elu_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  map(result, ith, nth, userdata,
      [p](Vec x) { return select(x < 0.0F, simd::expm1(x * p.c) * p.a, x * p.b); });
}

void softplus_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  const float inverse = 1.0F / p.a;
  map(result, ith, nth, userdata, [p, inverse](Vec x) {
    const Vec scaled = x * p.a;
    return select(scaled > p.b, x, softplus(scaled) * inverse);
  });
}

void pow_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const MapParams p = *static_cast<const MapParams*>(userdata);
  map(result, ith, nth, userdata,
      [p](Vec x) { return simd::each_lane(x, [p](float v) { return std::pow(v, p.a); }); });
}

void round_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  map(result, ith, nth, userdata, [](Vec x) { return x; });
}

}  // namespace ggml_delegate
