// Floats rounded to the numbers that half types have: to nearest, ties to even; a NaN stays.
#pragma once

#include "gemm.h"
#include "precision.h"
#include "vector_math.h"

namespace ggml_delegate::simd {

// The mantissa without its last `cut` bits.
inline Vec round_mantissa(Vec x, int cut) {
  const auto u = reinterpret_cast<UintVec>(x);
  const UintVec half = ((u >> cut) & 1U) + ((1U << (cut - 1)) - 1U);
  return reinterpret_cast<Vec>((u + half) & ~((1U << cut) - 1U));
}

inline Vec to_bfloat16(Vec x) { return select(x != x, x, round_mantissa(x, 16)); }

inline Vec to_float16(Vec x) {
  constexpr float kSmallest = 6.103515625e-05F;  // normal number, 2^-14
  constexpr float kEnd = 65520.0F;               // from here on it is infinite
  // In a sum with this, the last place is 2^-24: the step of the numbers below the normal ones.
  constexpr float kMagic = 0.75F;
  const Vec size = abs(x);
  const Vec small = (size + kMagic) - kMagic;
  const Vec finite = select(size < kSmallest, small, round_mantissa(size, 13));
  const Vec rounded = select(size < kEnd, finite, splat(kInfinity));
  return select(x != x, x, copysign(rounded, x));
}

// Numbers as they are stored, as floats.
using HalfVec = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));

inline HalfVec load_halves(const uint16_t* from) {
  HalfVec halves;
  std::memcpy(&halves, from, sizeof(halves));
  return halves;
}

struct Float32Numbers {
  using Stored = float;
  static Vec load(const float* from) { return simd::load(from); }
};

struct BFloat16Numbers {
  using Stored = uint16_t;
  static Vec load(const uint16_t* from) {
    const HalfVec half = load_halves(from);
#if defined(__AVX512F__)
    const UintVec wide = reinterpret_cast<UintVec>(
        _mm512_maskz_cvtepu16_epi32(kAllLanes, reinterpret_cast<__m256i>(half)));
#elif defined(__AVX2__)
    const UintVec wide =
        reinterpret_cast<UintVec>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
#else
    const UintVec wide = __builtin_convertvector(half, UintVec);
#endif
    return reinterpret_cast<Vec>(wide << 16);
  }
};

struct Float16Numbers {
  using Stored = uint16_t;
  static Vec load(const uint16_t* from) {
    const HalfVec half = load_halves(from);
#if defined(__AVX512F__)
    return _mm512_maskz_cvtph_ps(kAllLanes, reinterpret_cast<__m256i>(half));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(reinterpret_cast<__m128i>(half));
#else
    const UintVec bits = __builtin_convertvector(half, UintVec);
    const UintVec sign = (bits & 0x8000U) << 16;
    const UintVec digits = (bits & 0x7fffU) << 13;
    // The exponents differ by 112; those of what is not finite are all ones.
    const Vec finite = reinterpret_cast<Vec>(digits) * 0x1p112F;
    const IntVec ends = reinterpret_cast<IntVec>(bits & 0x7c00U) == 0x7c00;
    const Vec size = select(ends, reinterpret_cast<Vec>(digits | 0x7f800000U), finite);
    return reinterpret_cast<Vec>(reinterpret_cast<UintVec>(size) | sign);
#endif
  }
};

// Numbers from the one at `at` on.
inline Vec load(const StoredFloats& numbers, int64_t at) {
  switch (numbers.type) {
    case Precision::Float32:
      break;
    case Precision::Float16:
      return Float16Numbers::load(static_cast<const uint16_t*>(numbers.data) + at);
    case Precision::BFloat16:
      return BFloat16Numbers::load(static_cast<const uint16_t*>(numbers.data) + at);
  }
  return load(static_cast<const float*>(numbers.data) + at);
}

// Elements to compute before they are rounded: they stay in the first-level cache until then.
inline constexpr int64_t kRounded = 2048;

// Rounds numbers in place.
inline void round_to(Precision precision, float* x, int64_t count) {
  const auto each = [&](auto function) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(x + i, function(load(x + i)));
    if (i < count) store_part(x + i, function(load_part(x + i, count - i)), count - i);
  };
  if (precision == Precision::Float16) each(to_float16);
  if (precision == Precision::BFloat16) each(to_bfloat16);
}

}  // namespace ggml_delegate::simd
