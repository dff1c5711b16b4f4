// Elementary functions on float vectors, without branches: polynomials and one division at most.
//
// Errors are within 2 ulp of the exact value unless a function says otherwise; NaN and infinities
// come out as libm has them. Polynomial coefficients are minimax fits of relative error.
#pragma once

#include <cmath>
#include <limits>

#include "simd.h"

namespace ggml_delegate::simd {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kLog2E = 1.44269504F;
// ln 2 in two parts; products of the first with small integers are exact.
inline constexpr float kLn2High = 0x1.62e4p-1F;
inline constexpr float kLn2Low = 0x1.7f7d1cp-20F;
// Adding this rounds to an integer, which then stands in the lowest bits.
inline constexpr float kRound = 0x1.8p23F;

inline IntVec bits(Vec v) { return reinterpret_cast<IntVec>(v); }
inline Vec from_bits(IntVec v) { return reinterpret_cast<Vec>(v); }
// a - b and v 2^count as the processor has them. The bits of any float may come here, before the
// lanes in question are replaced, and signed arithmetic must not overflow.
inline IntVec wrapping_minus(IntVec a, IntVec b) {
  return reinterpret_cast<IntVec>(reinterpret_cast<UintVec>(a) - reinterpret_cast<UintVec>(b));
}
inline IntVec shifted_left(IntVec v, int count) {
  return reinterpret_cast<IntVec>(reinterpret_cast<UintVec>(v) << count);
}
inline IntVec splat(int32_t value) { return value - IntVec{}; }
inline Vec select(IntVec mask, Vec a, Vec b) { return mask ? a : b; }
inline Vec abs(Vec x) { return from_bits(bits(x) & 0x7fffffff); }
inline Vec copysign(Vec magnitude, Vec sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & splat(INT32_MIN)));
}

// A NaN on either side wins, as in torch.minimum and torch.maximum.
inline Vec minimum(Vec a, Vec b) { return select((a < b) | (a != a), a, b); }
inline Vec maximum(Vec a, Vec b) { return select((a > b) | (a != a), a, b); }

template <typename Function>
inline Vec each_lane(Vec x, Function function) {
  Vec result;
  for (int i = 0; i < kLanes; ++i) result[i] = function(x[i]);
  return result;
}
inline Vec sqrt(Vec x) {
  return each_lane(x, [](float v) { return __builtin_sqrtf(v); });
}
inline Vec floor(Vec x) {
  return each_lane(x, [](float v) { return __builtin_floorf(v); });
}
inline Vec ceil(Vec x) {
  return each_lane(x, [](float v) { return __builtin_ceilf(v); });
}
inline Vec trunc(Vec x) {
  return each_lane(x, [](float v) { return __builtin_truncf(v); });
}
// Halves go to the even neighbour.
inline Vec round(Vec x) {
  return each_lane(x, [](float v) { return __builtin_nearbyintf(v); });
}

inline float sum_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline float max_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
}

// 2^n for whole n in [-126, 127].
inline Vec pow2(IntVec n) { return from_bits(shifted_left(n + 127, 23)); }

// x = n ln 2 + r with |r| <= ln(2) / 2, for |x| < 2^20.
struct Ln2Multiple {
  IntVec n;
  Vec n_float;
  Vec r;
};
inline Ln2Multiple reduce_by_ln2(Vec x) {
  const Vec shifted = x * kLog2E + kRound;
  const Vec n = shifted - kRound;
  return {wrapping_minus(bits(shifted), bits(splat(kRound))), n, (x - n * kLn2High) - n * kLn2Low};
}

// e^r - 1 for |r| <= ln(2) / 2, with its relative accuracy at 0.
inline Vec expm1_reduced(Vec r) {
  const Vec square = r * r;
  const Vec high = (0.0013882507F * r + 0.00836658F) * r + 0.0416672F;
  return r + square * ((0.16666543F * r + 0.49999997F) + square * high);
}

#if defined(__AVX512F__)
// v 2^n for whole n, beyond the normal numbers too.
inline Vec times_pow2(Vec v, Vec n) { return _mm512_maskz_scalef_ps(kAllLanes, v, n); }

inline Vec exp(Vec x) {
  const Ln2Multiple reduced = reduce_by_ln2(clamp(x, splat(-104.0F), splat(89.0F)));
  return times_pow2(1.0F + expm1_reduced(reduced.r), reduced.n_float);
}

// e^x for x <= 0; 0 where that is below the normal numbers.
inline Vec exp_nonpositive(Vec x) {
  const Ln2Multiple reduced = reduce_by_ln2(x);
  const Vec e = times_pow2(1.0F + expm1_reduced(reduced.r), reduced.n_float);
  return select(x < -87.0F, Vec{}, e);
}
#else
inline Vec exp(Vec x) {
  const Ln2Multiple reduced = reduce_by_ln2(clamp(x, splat(-104.0F), splat(89.0F)));
  const IntVec half = reduced.n >> 1;  // two factors: 2^n alone may be no normal number
  return (1.0F + expm1_reduced(reduced.r)) * pow2(half) * pow2(reduced.n - half);
}

// e^x for x <= 0; 0 where that is below the normal numbers.
inline Vec exp_nonpositive(Vec x) {
  const Vec lowest = splat(-87.0F);
  const Ln2Multiple reduced = reduce_by_ln2(select(x < lowest, lowest, x));
  return select(x < lowest, Vec{}, (1.0F + expm1_reduced(reduced.r)) * pow2(reduced.n));
}
#endif

// e^x - 1 for x <= 0.
inline Vec expm1_nonpositive(Vec x) {
  const Ln2Multiple reduced = reduce_by_ln2(select(x < -20.0F, splat(-20.0F), x));
  const Vec scale = pow2(reduced.n);
  return scale * expm1_reduced(reduced.r) + (scale - 1.0F);
}

inline Vec expm1(Vec x) {
  const Ln2Multiple reduced = reduce_by_ln2(clamp(x, splat(-20.0F), splat(89.0F)));
  const Vec half = pow2(reduced.n - 1);  // 2^n itself may be infinite
  const Vec result = (half * expm1_reduced(reduced.r) + (half - 0.5F)) * 2.0F;
  return select(x == 0.0F, x, result);
}

inline Vec log(Vec x) {
  const IntVec tiny = x < std::numeric_limits<float>::min();
  const IntVec scaled = bits(select(tiny, x * 0x1p23F, x));
  // Of a mantissa in [sqrt(1/2), sqrt(2)).
  const IntVec exponent = wrapping_minus(scaled, splat(0x3f3504f3)) >> 23;
  const Vec f = from_bits(wrapping_minus(scaled, shifted_left(exponent, 23))) - 1.0F;
  const Vec e = __builtin_convertvector(exponent, Vec) - select(tiny, splat(23.0F), Vec{});
  Vec q = -0.07634321F * f + 0.12765402F;
  q = q * f - 0.13162017F;
  q = q * f + 0.14201373F;
  q = q * f - 0.16623144F;
  q = q * f + 0.20001236F;
  q = q * f - 0.25000826F;
  q = q * f + 0.3333333F;
  const Vec square = f * f;
  const Vec low = e * kLn2Low + (square * f * q - 0.5F * square);
  const Vec result = e * kLn2High + (f + low);
  const Vec special = select(x == 0.0F, splat(-kInfinity),
                             select(x < 0.0F, splat(std::numeric_limits<float>::quiet_NaN()), x));
  return select((x > 0.0F) & (x < kInfinity), result, special);
}

// log(1 + x) for 0 <= x <= 1, as 2 artanh(x / (2 + x)).
inline Vec log1p_unit(Vec x) {
  const Vec s = x / (2.0F + x);
  const Vec z = s * s;
  const Vec q = (((0.2430833F * z + 0.21425851F) * z + 0.28617036F) * z + 0.39998874F) * z;
  return 2.0F * s + s * z * (q + 0.66666675F);
}

// log(1 + x), with its relative accuracy at 0.
inline Vec log1p(Vec x) {
  const Vec u = 1.0F + x;
  const Vec lost = (x - (u - 1.0F)) / u;  // what rounding 1 + x dropped
  return log(u) + select((u > 0.0F) & (u < kInfinity), lost, Vec{});
}

inline Vec sigmoid(Vec x) { return 1.0F / (1.0F + exp(-x)); }

// Within 3 ulp.
inline Vec tanh(Vec x) {
  const Vec e = expm1_nonpositive(-2.0F * abs(x));
  return copysign(-e / (2.0F + e), x);
}

// erf(|x|) = 1 - exp(-x q(x)), which keeps its relative accuracy at 0 and needs no division.
inline Vec erf(Vec x) {
  const Vec a = abs(x);
  Vec q = 1.1933073e-06F * a - 2.1354679e-05F;
  q = q * a + 0.00016748131F;
  q = q * a - 0.00074068661F;
  q = q * a + 0.0017993547F;
  q = q * a - 0.00025306156F;
  q = q * a - 0.019117694F;
  q = q * a + 0.10277127F;
  q = q * a + 0.63661981F;
  q = q * a + 1.1283792F;
  return copysign(-expm1_nonpositive(-a * q), x);
}

// x times the normal distribution function, whose difference from 1/2 is odd and, up to 5.3, a
// quotient of polynomials. Within 1.1e-6, as torch's own; what is left below -5.3 counts as 0.
inline Vec gelu_erf(Vec x) {
  const Vec a = clamp(x, splat(-5.3F), splat(5.3F));
  const Vec z = a * a;
  Vec p = 2.40513369e-08F * z + 6.37892799e-06F;
  Vec q = 1.23718883e-06F * z + 7.13470945e-05F;
  p = p * z + 0.000160318566F;
  q = q * z + 0.00183648139F;
  p = p * z + 0.00462789647F;
  q = q * z + 0.0281379372F;
  p = p * z + 0.0329342447F;
  q = q * z + 0.249220148F;
  p = p * z + 0.398942262F;
  q = q * z + 1.0F;
  return x * select(x < -5.3F, Vec{}, 0.5F + a * p / q);
}

// x / 2 (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu_tanh(Vec x) {
  const Vec u = x * (1.59576912F + 0.0713548163F * x * x);
  return x / (1.0F + exp(-u));
}

// sin(x + quarters * pi / 2). Below |x| = 8192 within 2e-7 absolute; libm beyond.
inline Vec sin_shifted(Vec x, int32_t quarters) {
  constexpr float kLimit = 8192.0F;
  const Vec inside = select(abs(x) < kLimit, x, Vec{});
  const Vec shifted = inside * 0.636619772F + kRound;
  const Vec n = shifted - kRound;
  // pi / 2 in three parts; products with the first two are exact.
  const Vec r = ((inside - n * 1.5703125F) - n * 4.837512969970703125e-4F) - n * 7.54978995489e-8F;
  const Vec z = r * r;
  const Vec sine = r + r * z * ((-0.00019516655F * z + 0.008332173F) * z - 0.16666655F);
  const Vec cosine =
      (1.0F - 0.5F * z) + z * z * ((2.4432411e-05F * z - 0.001388731F) * z + 0.041666646F);
  const IntVec quadrant = bits(shifted) + quarters;
  const Vec magnitude = select((quadrant & 1) != 0, cosine, sine);
  Vec result = from_bits(bits(magnitude) ^ shifted_left(quadrant & 2, 30));
  const IntVec outside = ~(abs(x) < kLimit);
  int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) any |= outside[i];
  if (__builtin_expect(any != 0, 0)) {
    for (int i = 0; i < kLanes; ++i) {
      if (outside[i] != 0) result[i] = quarters == 0 ? std::sin(x[i]) : std::cos(x[i]);
    }
  }
  return result;
}
inline Vec sin(Vec x) { return sin_shifted(x, 0); }
inline Vec cos(Vec x) { return sin_shifted(x, 1); }

}  // namespace ggml_delegate::simd
