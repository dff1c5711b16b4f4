// Floats rounded to the numbers that half types have: to nearest, ties to even; a NaN stays. And
// floats read from where they are stored in fewer bits.
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

// As integers from 0 to 65535.
inline UintVec widened(HalfVec halves) {
#if defined(__AVX512F__)
  return reinterpret_cast<UintVec>(
      _mm512_maskz_cvtepu16_epi32(kAllLanes, reinterpret_cast<__m256i>(halves)));
#elif defined(__AVX2__)
  return reinterpret_cast<UintVec>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
#else
  return __builtin_convertvector(halves, UintVec);
#endif
}

struct Float32Numbers {
  using Stored = float;
  static Vec load(const float* from) { return simd::load(from); }
};

struct BFloat16Numbers {
  using Stored = uint16_t;
  static Vec load(const uint16_t* from) {
    return reinterpret_cast<Vec>(widened(load_halves(from)) << 16);
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

// Bytes as integers from 0 to 255.
inline UintVec load_bytes(const uint8_t* from) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<UintVec>(_mm512_maskz_cvtepu8_epi32(kAllLanes, bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<UintVec>(_mm256_cvtepu8_epi32(bytes));
#else
  using Bytes = uint8_t __attribute__((vector_size(kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return __builtin_convertvector(bytes, UintVec);
#endif
}

// int8 to int32; GCC 12 would take the elements one by one.
inline IntVec load_integers(const int8_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<IntVec>(_mm512_maskz_cvtepi8_epi32(
      kAllLanes, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
  return reinterpret_cast<IntVec>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
  using Bytes = int8_t __attribute__((vector_size(kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return __builtin_convertvector(bytes, IntVec);
#endif
}

// Floats of 28 bits, of panels of kPanelWidth.
struct Float28Numbers {
  // `at`: a multiple of kLanes.
  static Vec load(const uint8_t* numbers, int64_t at) {
    using Pairs = uint64_t __attribute__((vector_size(sizeof(UintVec))));
    static_assert(kPanelWidth % kLanes == 0);
    const auto place = static_cast<uint64_t>(at);
    const uint8_t* block = numbers + place / kPanelWidth * kFloat28Bytes;
    const auto lane = static_cast<uint32_t>(kLanes == kPanelWidth ? 0 : place % kPanelWidth);
    uint64_t pair;
    std::memcpy(&pair, block + kPanelWidth * (sizeof(uint16_t) + 1), sizeof(pair));
    UintVec shifts{};
    for (uint32_t i = 0; i < kLanes; ++i) shifts[i] = i / 2 * 4;
    const UintVec high = reinterpret_cast<UintVec>(Pairs{} + pair) >> (shifts + lane * 2);
    const UintVec code = widened(load_halves(reinterpret_cast<const uint16_t*>(block) + lane)) |
                         (load_bytes(block + kPanelWidth * sizeof(uint16_t) + lane) << 16) |
                         ((high & 0xFU) << 24);
    return reinterpret_cast<Vec>(code + kLeast);
  }

  static float one(const uint8_t* numbers, int64_t at) {
    const uint8_t* block = numbers + at / kPanelWidth * kFloat28Bytes;
    const int64_t lane = at % kPanelWidth;
    uint16_t low;
    uint32_t words[2];
    std::memcpy(&low, block + lane * sizeof(low), sizeof(low));
    std::memcpy(words, block + kPanelWidth * (sizeof(low) + 1), sizeof(words));
    const uint32_t high = (words[lane % 2] >> (lane / 2 * 4)) & 0xFU;
    const uint32_t middle = block[kPanelWidth * sizeof(low) + lane];
    const uint32_t bits = (low | middle << 16 | high << 24) + kLeast;
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
  }

  static constexpr uint32_t kLeast = 102U << 23;  // the bits of 2^-25
};

// Integers of 8 bits times a float16.
struct SuperBlockNumbers {
  // `at`: a multiple of kLanes.
  static Vec load(const uint8_t* numbers, int64_t at) {
    static_assert(kPanelWidth % kLanes == 0);
    const auto place = static_cast<uint64_t>(at);
    const uint8_t* block = numbers + place / kSuperBlockIntegers * kSuperBlockBytes;
    const auto* integers = reinterpret_cast<const int8_t*>(block);
    const auto* factors = reinterpret_cast<const uint16_t*>(block + kSuperBlockIntegers);
    const IntVec found = load_integers(integers + place % kSuperBlockIntegers);
    return __builtin_convertvector(found, Vec) *
           Float16Numbers::load(factors + place % kPanelWidth);
  }

  static float one(const uint8_t* numbers, int64_t at) {
    const uint8_t* block = numbers + at / kSuperBlockIntegers * kSuperBlockBytes;
    ggml_fp16_t factor;
    std::memcpy(&factor, block + kSuperBlockIntegers + at % kPanelWidth * 2, sizeof(factor));
    const auto integer = static_cast<int8_t>(block[at % kSuperBlockIntegers]);
    return static_cast<float>(integer) * ggml_fp16_to_fp32(factor);
  }
};

// Numbers from the one at `at` on, a multiple of kLanes, and from others on that are `step` apart.
template <int Count>
inline void load(const StoredFloats& numbers, int64_t at, int64_t step, Vec (&to)[Count]) {
  const auto each = [&](auto one) {
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) to[i] = one(at + i * step);
  };
  switch (numbers.type) {
    case StoredFloats::Type::Float32:
      break;
    case StoredFloats::Type::Float16:
      return each([&](int64_t i) {
        return Float16Numbers::load(static_cast<const uint16_t*>(numbers.data) + i);
      });
    case StoredFloats::Type::BFloat16:
      return each([&](int64_t i) {
        return BFloat16Numbers::load(static_cast<const uint16_t*>(numbers.data) + i);
      });
    case StoredFloats::Type::Float28:
      return each([&](int64_t i) {
        return Float28Numbers::load(static_cast<const uint8_t*>(numbers.data), i);
      });
    case StoredFloats::Type::SuperBlocks:
      return each([&](int64_t i) {
        return SuperBlockNumbers::load(static_cast<const uint8_t*>(numbers.data), i);
      });
  }
  each([&](int64_t i) { return load(static_cast<const float*>(numbers.data) + i); });
}

inline Vec load(const StoredFloats& numbers, int64_t at) {
  Vec one[1];
  load(numbers, at, 0, one);
  return one[0];
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
