#include "pairs.h"

#include "simd.h"
#include "vector_math.h"

namespace ggml_delegate {

#if defined(GGD_TILES) || defined(GGD_PAIRS)

bool pair_rows(const uint16_t* rows, int64_t depth, uint32_t* pairs) {
  alignas(64) static const uint16_t kPaired[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                   21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                   11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  constexpr __mmask32 kAll = ~__mmask32{0};
  const __m512i infinite = _mm512_set1_epi16(0x7F80);
  __mmask32 odd = 0;
  for (int64_t k = 0; k < depth; k += 2, pairs += kPanelWidth) {
    const __mmask32 mask = k + 1 < depth ? kAll : kAll >> 16;
    const __m512i pair = _mm512_maskz_loadu_epi16(mask, rows + k * kPanelWidth);
    const __m512i exponents = _mm512_and_si512(pair, infinite);
    const __mmask32 other_than_0 = _mm512_test_epi16_mask(pair, _mm512_set1_epi16(0x7FFF));
    odd |= _mm512_cmpeq_epi16_mask(exponents, infinite);
    odd |= other_than_0 & _mm512_testn_epi16_mask(exponents, exponents);
    _mm512_storeu_si512(pairs,
                        _mm512_maskz_permutexvar_epi16(kAll, _mm512_load_si512(kPaired), pair));
  }
  return odd == 0;
}

#endif

#if defined(GGD_PAIRS)

// Intel's processors with the instruction do half as many of them as of products of float32.
bool has_fast_pairs() {
  static const bool fast = __builtin_cpu_is("amd") != 0;
  return fast;
}

bool pair_left(const GemmBlock& block, uint32_t* pairs) {
  constexpr float kLeastSize = 0x1p-70F;  // of the largest of a row
  alignas(64) static const uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                  23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                  45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i upper = _mm512_load_si512(kUpper);
  const __m512i size_bits = _mm512_set1_epi32(0x7FFFFFFF);
  const int64_t depth = block.depth_count();
  __m512i set = _mm512_setzero_si512();  // the bits that are set in any number
  __m512i most = _mm512_setzero_si512();
  for (int64_t row = 0; row < block.row_count(); ++row) {
    const float* x = block.left + row * block.left_stride;
    __m512i largest = _mm512_setzero_si512();
    for (int64_t k = 0; k < depth; k += 32) {
      __m512i numbers[2];
      for (int i = 0; i < 2; ++i) {
        const int64_t left = depth - k - i * simd::kLanes;
        const __mmask16 mask = left >= simd::kLanes ? simd::kAllLanes
                               : left > 0           ? simd::mask_of(left)
                                                    : __mmask16{0};
        numbers[i] = _mm512_maskz_loadu_epi32(mask, x + k + i * simd::kLanes);
        set = _mm512_or_si512(set, numbers[i]);
        largest = _mm512_maskz_max_epu32(simd::kAllLanes, largest,
                                         _mm512_and_si512(numbers[i], size_bits));
      }
      const int64_t count = (depth - k + 1) / 2;
      const __mmask16 stored = count >= simd::kLanes ? simd::kAllLanes : simd::mask_of(count);
      _mm512_mask_storeu_epi32(
          pairs + k / 2, stored,
          _mm512_maskz_permutex2var_epi16(~__mmask32{0}, numbers[0], upper, numbers[1]));
    }
    const float size = simd::max_lanes(reinterpret_cast<simd::Vec>(largest));
    if (size > 0 && size < kLeastSize) return false;
    most = _mm512_maskz_max_epu32(simd::kAllLanes, most, largest);
    pairs += (depth + 1) / 2;
  }
  const bool finite =
      _mm512_cmp_epu32_mask(most, _mm512_set1_epi32(0x7F800000), _MM_CMPINT_NLT) == 0;
  return finite && _mm512_test_epi32_mask(set, _mm512_set1_epi32(0xFFFF)) == 0;
}

#else

bool has_fast_pairs() { return false; }

#endif

}  // namespace ggml_delegate
