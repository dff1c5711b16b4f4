// The widest float vectors that the build's instruction set has, as GCC and Clang spell them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace ggml_delegate::simd {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * sizeof(float))));

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof(v)); }

using IntVec = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using UintVec = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));

// All ones in the first `count` lanes, zeros in the others.
inline IntVec first_lanes(int64_t count) {
  IntVec lanes;
  for (int32_t i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes < static_cast<int32_t>(count) - IntVec{};
}

// The first `count` <= kLanes elements; the others are 0. Without masks these ends of rows stay out
// of line, to leave the registers to the loops before them.
#if defined(__AVX512F__)
// With this mask, intrinsics become the plain instructions; without one, GCC 12 takes the undefined
// operand inside its own header for a mistake of ours.
inline constexpr __mmask16 kAllLanes = 0xffff;
inline __mmask16 mask_of(int64_t count) { return static_cast<__mmask16>((1U << count) - 1U); }
inline Vec load_part(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(mask_of(count), from);
}
inline void store_part(float* to, Vec v, int64_t count) {
  _mm512_mask_storeu_ps(to, mask_of(count), v);
}
#else
[[gnu::noinline]] inline Vec load_part(const float* from, int64_t count) {
#if defined(__AVX__)
  return _mm256_maskload_ps(from, reinterpret_cast<__m256i>(first_lanes(count)));
#else
  Vec v{};
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(float));
  return v;
#endif
}

// Masked stores are slow on some processors with AVX alone.
[[gnu::noinline]] inline void store_part(float* to, Vec v, int64_t count) {
  if (count >= kLanes) return store(to, v);
  float lanes[kLanes];
  store(lanes, v);
  const float* from = lanes;
  for (int width = kLanes / 2; width > 0; width /= 2) {
    if ((count & width) == 0) continue;
    std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
    to += width;
    from += width;
  }
}
#endif

inline Vec splat(float value) { return value - Vec{}; }

// a > b ? a : b, and a < b ? a : b: with a NaN on either side, b. GCC makes two instructions of
// such choices between vectors, where the processor has one.
inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(kAllLanes, a, b);
#elif defined(__AVX__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
inline Vec smaller(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(kAllLanes, a, b);
#elif defined(__AVX__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// A NaN in `v` stays, as torch.clamp keeps it.
inline Vec clamp(Vec v, Vec min, Vec max) { return smaller(max, larger(min, v)); }

// memcpy for runs of a few elements, whose call would cost more than the copy.
inline void copy(const float* from, float* to, int64_t count) {
  for (; count >= kLanes; count -= kLanes, from += kLanes, to += kLanes) store(to, load(from));
#if defined(__AVX512F__)
  if (count > 0) store_part(to, load_part(from, count), count);
#else
  for (; count > 0; --count) *to++ = *from++;
#endif
}

inline void fill(float* to, float value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

}  // namespace ggml_delegate::simd
