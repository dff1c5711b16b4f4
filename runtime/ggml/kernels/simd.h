// The widest float vectors that the build's instruction set has, as GCC and Clang spell them.
#pragma once

#include <cstdint>
#include <cstring>

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

// The first `count` <= kLanes elements; the others are 0. For the ends of rows: not fast.
[[gnu::noinline]] inline Vec load_part(const float* from, int64_t count) {
  Vec v{};
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(float));
  return v;
}

[[gnu::noinline]] inline void store_part(float* to, Vec v, int64_t count) {
  std::memcpy(to, &v, static_cast<size_t>(count) * sizeof(float));
}

inline Vec splat(float value) { return value - Vec{}; }

// A NaN in `v` stays, as torch.clamp keeps it: every comparison with it is false.
inline Vec clamp(Vec v, Vec min, Vec max) {
  v = v < min ? min : v;
  return v > max ? max : v;
}

// memcpy for runs of a few elements, whose call would cost more than the copy.
inline void copy(const float* from, float* to, int64_t count) {
  for (; count >= kLanes; count -= kLanes, from += kLanes, to += kLanes) store(to, load(from));
  for (; count > 0; --count) *to++ = *from++;
}

inline void fill(float* to, float value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

}  // namespace ggml_delegate::simd
