#include "split_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {

#if defined(GGD_INTEGERS_BY_FOUR)
namespace {

using simd::kAllLanes;
using simd::kLanes;
using simd::Vec;

constexpr __mmask64 kAllBytes = ~__mmask64{0};

// A block has three digits, 24 bits for its largest element, if that is at most kFewOverMean times
// the row's mean magnitude: what the digits lose of the small elements is then about what float32
// loses in their sum. The mean hides small elements behind a few large ones, which a weight may
// multiply by 0; against that, the largest element is also compared with the row's geometric mean.
constexpr float kFewOverMean = 16;
constexpr float kFewOverTypical = 64;
constexpr float kMostOverTypical = kFewOverTypical * 256;
// Units and their products with digits have to be normal numbers.
constexpr float kLeastSplit = 0x1p-90F;

struct RowRange {
  bool usable;
  float few;  // up to this largest element, a block has three digits
};

RowRange range_of(const float* x, int64_t k) {
  Vec sum{}, largest{}, exponents{};
  int64_t count = 0;  // of elements other than 0
  bool small = false;
  for (int64_t i = 0; i < k; i += kSplitBlock) {
    bool any = false;
    bool any_large = false;
    for (int64_t j = i; j < i + kSplitBlock; j += kLanes) {
      const Vec size = simd::abs(simd::load(x + j));
      const __mmask16 some = _mm512_cmp_ps_mask(size, Vec{}, _CMP_NEQ_UQ);
      exponents += reinterpret_cast<Vec>(_mm512_maskz_getexp_ps(some, size));
      count += __builtin_popcount(some);
      sum += size;
      largest = simd::larger(size, largest);
      any = any || some != 0;
      any_large = any_large || _mm512_cmp_ps_mask(size, simd::splat(kLeastSplit), _CMP_GE_OQ) != 0;
    }
    small = small || (any && !any_large);
  }
  if (count == 0) return {true, 0};
  const float total = simd::sum_lanes(sum);
  const float most = simd::max_lanes(largest);
  const float typical = std::exp2(simd::sum_lanes(exponents) / static_cast<float>(count));
  // Of an infinity or a NaN, the total is not finite.
  const bool usable = std::isfinite(total) && !small && most <= kMostOverTypical * typical;
  const float mean = total / static_cast<float>(k);
  return {usable, std::min(kFewOverMean * mean, kFewOverTypical * typical)};
}

// Where the bytes of two vectors of 16 integers go, of which byte 3 of an integer is digit 0: to
// two digits of 32 elements. Pairs: the even elements of eight come first.
struct DigitOrder {
  alignas(64) uint8_t from[2][64];
};
constexpr DigitOrder digit_order(bool pairs) {
  DigitOrder order{};
  for (int i = 0; i < 128; ++i) {
    const int place = i % 32;
    const int of_eight = place % 8;
    const int even_first = of_eight < 4 ? 2 * of_eight : 2 * of_eight - 7;
    const int element = pairs ? place - of_eight + even_first : place;
    order.from[i / 64][i % 64] = static_cast<uint8_t>(element * 4 + 3 - i / 32);
  }
  return order;
}
constexpr DigitOrder kInSequence = digit_order(false);
constexpr DigitOrder kEvenFirst = digit_order(true);

float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return power;
}

void split_block(const float* x, float few, bool pairs, SplitBlock* block) {
  const DigitOrder& order = pairs ? kEvenFirst : kInSequence;
  const Vec parts[2] = {simd::load(x), simd::load(x + kLanes)};
  const float largest = simd::max_lanes(simd::larger(simd::abs(parts[0]), simd::abs(parts[1])));
  int32_t exponent = 0;  // of the unit, so that digits of -128 to 127 can hold the largest element
  if (largest > 0) {
    int32_t bits;
    std::memcpy(&bits, &largest, sizeof(bits));
    exponent = (bits >> 23) - 127 - 6;
    if (largest > 127.49F * power_of_two(exponent)) ++exponent;
  }
  const bool has_last = largest > few;
  const Vec factor = simd::splat(power_of_two((has_last ? 24 : 16) - exponent));
  __m512i biased[2];  // each byte is a digit + 128
  for (int i = 0; i < 2; ++i) {
    __m512i q = _mm512_maskz_cvtps_epi32(kAllLanes, parts[i] * factor);
    if (!has_last) q = _mm512_maskz_slli_epi32(kAllLanes, q, 8);
    biased[i] = _mm512_add_epi32(q, _mm512_set1_epi32(static_cast<int32_t>(0x80808080U)));
  }
  block->unit = power_of_two(exponent);
  block->has_last = has_last ? 1 : 0;
  for (int i = 0; i < 2; ++i) {
    const __m512i digits = _mm512_maskz_permutex2var_epi8(
        kAllBytes, biased[0], _mm512_load_si512(order.from[i]), biased[1]);
    _mm512_storeu_si512(block->digits[2 * i],
                        _mm512_xor_si512(digits, _mm512_set1_epi8(static_cast<char>(0x80))));
    alignas(64) int64_t sums[8];  // of 8 bytes each
    _mm512_store_si512(sums, _mm512_sad_epu8(digits, _mm512_setzero_si512()));
    for (int j = 0; j < 2; ++j) {
      const int64_t sum = sums[4 * j] + sums[4 * j + 1] + sums[4 * j + 2] + sums[4 * j + 3];
      const auto minus = static_cast<int32_t>(128 * kSplitBlock - sum);
      block->minus_sums[2 * i + j] = minus;
      block->raised_sums[2 * i + j] = minus * (pairs ? kRaised4Bits : kRaised8Bits);
    }
  }
  const int32_t* minus = block->minus_sums;
  const auto upper = static_cast<float>(minus[0] * 256 + minus[1]) * 0x1p-8F;
  const float lower = static_cast<float>(minus[2] * 256 + minus[3]) * 0x1p-24F;
  block->sum = -(upper + lower) * block->unit;
}

}  // namespace

void split_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const SplitRowsParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data) + params.offset;
  auto* bytes = static_cast<char*>(result->data);
  const Range part = part_of(params.k / kSplitBlock, ith, nth);
  if (part.first == part.last) return;
  for (int64_t i = 0; i < params.m; ++i, x += params.stride, bytes += split_row_bytes(params.k)) {
    const RowRange range = range_of(x, params.k);  // each thread finds it for itself
    auto* header = reinterpret_cast<SplitRowHeader*>(bytes);
    if (part.first == 0) header->usable = range.usable ? 1 : 0;
    if (!range.usable) continue;
    auto* blocks = reinterpret_cast<SplitBlock*>(header + 1);
    for (int64_t j = part.first; j < part.last; ++j) {
      split_block(x + j * kSplitBlock, range.few, params.pairs, blocks + j);
    }
  }
}

#else

void split_rows_kernel(ggml_tensor* /*result*/, int /*ith*/, int /*nth*/, void* /*userdata*/) {}

#endif

}  // namespace ggml_delegate
