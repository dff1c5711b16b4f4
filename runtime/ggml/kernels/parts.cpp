#include "parts.h"

#include <ggml.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "pairs.h"
#include "vector_math.h"

namespace ggml_delegate {

#if defined(GGD_TILES)
namespace {

using simd::kAllLanes;
using simd::kLanes;
using simd::Vec;

using Bits = __m512i;

constexpr uint32_t kUpperHalf = 0xFFFF0000U;
constexpr uint32_t kSizeBits = 0x7FFFFFFFU;
constexpr uint32_t kMostSize = 0x7F000000U;  // 2^127: larger numbers may round to infinity
constexpr float kLeastSize = 0x1p-70F;

inline Bits splat(uint32_t bits) { return _mm512_set1_epi32(static_cast<int32_t>(bits)); }

// Each part in the upper half of a lane: what is left of the number, to nearest. The last is exact.
inline void split(Vec x, Bits (&parts)[kMostParts]) {
#pragma GCC unroll 3
  for (int i = 0; i < kMostParts; ++i) {
    const Bits rounded = _mm512_add_epi32(reinterpret_cast<Bits>(x), splat(0x8000U));
    parts[i] = _mm512_and_si512(rounded, splat(kUpperHalf));
    x -= reinterpret_cast<Vec>(parts[i]);
  }
}

// What has been seen of a row.
struct Seen {
  Bits largest = _mm512_setzero_si512();  // size
  Bits set = _mm512_setzero_si512();      // the bits that are set in any number

  void add(Vec x) {
    const Bits bits = reinterpret_cast<Bits>(x);
    set = _mm512_or_si512(set, bits);
    largest = _mm512_maskz_max_epu32(kAllLanes, largest, _mm512_and_si512(bits, splat(kSizeBits)));
  }
  bool usable() const {
    if (_mm512_cmp_epu32_mask(largest, splat(kMostSize), _MM_CMPINT_NLT) != 0) return false;
    const float size = simd::max_lanes(reinterpret_cast<Vec>(largest));
    return size == 0 || size >= kLeastSize;
  }
  int parts() const {
    const auto any = [&](uint32_t bits) { return _mm512_test_epi32_mask(set, splat(bits)) != 0; };
    return any(0xFFU) ? 3 : (any(0xFF00U) ? 2 : 1);
  }
};

// The upper halves of 32 lanes, in sequence.
inline Bits upper_halves(Bits first, Bits second) {
  alignas(64) static const uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_maskz_permutex2var_epi16(~__mmask32{0}, first, _mm512_load_si512(kOdd), second);
}

// The upper halves of each lane of `even`, and of `odd` behind it.
inline Bits paired(Bits even, Bits odd) {
  constexpr int kOr = 0xFE;  // a | b | 0: the lower halves are 0
  return _mm512_ternarylogic_epi32(_mm512_maskz_srli_epi32(kAllLanes, even, 16), odd, odd, kOr);
}

inline Vec load_some(const float* from, int64_t count) {
  if (count >= kLanes) return simd::load(from);
  return count <= 0 ? Vec{} : simd::load_part(from, count);
}

template <int Width, bool Zeros>
class Integers {
 public:
  Integers(const RightFactor& right, int64_t k, int64_t panel)
      : bytes_(static_cast<const int8_t*>(right.data) +
               panel * (Width == 8 ? k : (k + 1) / 2) * kPanelWidth),
        unsigned_(right.integers.offsets == Offsets::Minimums) {}

  // Of rows k and k + 1, k even.
  void load(int64_t k, Vec (&rows)[2]) const {
    if constexpr (Width == 8) {
      for (int i = 0; i < 2; ++i) rows[i] = floats(widen(bytes_ + (k + i) * kPanelWidth));
    } else {
      const Bits both = widen(bytes_ + k / 2 * kPanelWidth);
      rows[0] = floats(low_bits(both));
      rows[1] = floats(low_bits(_mm512_maskz_srai_epi32(kAllLanes, both, 4)));
    }
  }
  // The last row of an odd number.
  Vec load_last(int64_t k) const {
    const Bits bytes = widen(bytes_ + (Width == 8 ? k : k / 2) * kPanelWidth);
    return floats(Width == 8 ? bytes : low_bits(bytes));
  }
  static Bits widen(const int8_t* from) {
    return _mm512_maskz_cvtepi8_epi32(kAllLanes,
                                      _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vec floats(Bits integers) { return _mm512_maskz_cvtepi32_ps(kAllLanes, integers); }

 private:
  Bits low_bits(Bits lanes) const {
    if (unsigned_) return _mm512_and_si512(lanes, splat(0xF));
    return _mm512_maskz_srai_epi32(kAllLanes, _mm512_maskz_slli_epi32(kAllLanes, lanes, 28), 28);
  }

  const int8_t* bytes_;
  bool unsigned_;
};

template <int Width, bool Zeros>
void expand(const RightFactor& right, int64_t k_all, int64_t panel, int64_t k0, int64_t depth,
            uint16_t* tiles) {
  using Of = Integers<Width, Zeros>;
  const Of integers(right, k_all, panel);
  const int64_t group = right.integers.group;
  const int64_t groups = (k_all + group - 1) / group;
  for (int64_t step = 0; step < steps_of(depth); ++step, tiles += kTileElements) {
    const int64_t first = k0 + step * kTileDepth;
    const int64_t last = std::min(first + kTileDepth, k0 + depth);
    Vec zeros{};
    if constexpr (Zeros) {
      const int64_t at = (panel * groups + first / group) * kPanelWidth;
      zeros = Of::floats(Of::widen(right.integers.zeros + at));
    }
    for (int64_t i = 0; i < kTileDepth / 2; ++i) {
      const int64_t k = first + 2 * i;
      Vec rows[2] = {};
      if (k + 1 < last) {
        integers.load(k, rows);
        if constexpr (Zeros) rows[1] -= zeros;
      } else if (k < last) {
        rows[0] = integers.load_last(k);
      }
      if constexpr (Zeros) {
        if (k < last) rows[0] -= zeros;
      }
      _mm512_storeu_si512(tiles + i * kTileDepth,
                          paired(reinterpret_cast<Bits>(rows[0]), reinterpret_cast<Bits>(rows[1])));
    }
  }
}

// bfloat16 of the integers that 4 bits stand for. Twice: indices may have another bit above them.
class NibbleTable {
 public:
  explicit NibbleTable(bool has_signs) {
    for (int i = 0; i < 32; ++i) {
      const int integer = i % 16 - (has_signs && i % 16 >= 8 ? 16 : 0);
      numbers_[static_cast<size_t>(i)] = ggml_fp32_to_bf16(static_cast<float>(integer)).bits;
    }
  }
  Bits load() const { return _mm512_load_si512(numbers_.data()); }

 private:
  alignas(64) std::array<uint16_t, 32> numbers_{};
};

// Integers of 4 bits without zero points, looked up two to a lane.
void look_up(const RightFactor& right, int64_t k_all, int64_t panel, int64_t k0, int64_t depth,
             uint16_t* tiles) {
  constexpr int kOr = 0xFE;
  static const NibbleTable signed_numbers(true);
  static const NibbleTable unsigned_numbers(false);
  const bool has_signs = right.integers.offsets != Offsets::Minimums;
  const Bits table = (has_signs ? signed_numbers : unsigned_numbers).load();
  const auto* bytes =
      static_cast<const int8_t*>(right.data) + panel * ((k_all + 1) / 2) * kPanelWidth;
  bytes += k0 / 2 * kPanelWidth;
  const auto pairs_at = [&](int64_t pair) {
    const Bits lanes = _mm512_maskz_cvtepu8_epi32(
        kAllLanes, _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + pair * kPanelWidth)));
    const Bits upper = _mm512_maskz_slli_epi32(kAllLanes, lanes, 12);
    const Bits indices = _mm512_ternarylogic_epi32(lanes, upper, upper, kOr);
    return _mm512_maskz_permutexvar_epi16(~__mmask32{0}, indices, table);
  };
  const int64_t pairs = depth / 2;
  for (int64_t i = 0; i < pairs; ++i) _mm512_storeu_si512(tiles + i * kTileDepth, pairs_at(i));
  int64_t done = pairs;
  if (depth % 2 != 0) {
    _mm512_storeu_si512(tiles + done * kTileDepth,
                        _mm512_and_si512(pairs_at(done), splat(0xFFFFU)));
    ++done;
  }
  std::memset(
      tiles + done * kTileDepth, 0,
      static_cast<size_t>(steps_of(depth) * kTileElements - done * kTileDepth) * sizeof(uint16_t));
}

// See take_right().
bool pair_halves(const uint16_t* rows, int64_t depth, uint16_t* tiles) {
  const bool usable = pair_rows(rows, depth, reinterpret_cast<uint32_t*>(tiles));
  const int64_t pairs = (depth + 1) / 2;
  std::memset(
      tiles + pairs * kTileDepth, 0,
      static_cast<size_t>(steps_of(depth) * kTileElements - pairs * kTileDepth) * sizeof(uint16_t));
  return usable;
}

}  // namespace

Parts split_left(const float* from, int64_t stride, int64_t rows, int64_t height, int64_t depth,
                 uint16_t* tiles, float* sums) {
  const int64_t steps = steps_of(depth);
  Parts result{true, 1};
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t tile = row / height * steps;
    const int64_t at = row % height;
    const float* x = from + row * stride;
    uint16_t* to = tiles + tile * kStepElements + at * kTileDepth;
    Seen seen;
    for (int64_t step = 0; step < steps; ++step, x += kTileDepth, to += kStepElements) {
      const int64_t left = depth - step * kTileDepth;
      const Vec halves[2] = {load_some(x, left), load_some(x + kLanes, left - kLanes)};
      Bits parts[2][kMostParts];
      for (int i = 0; i < 2; ++i) {
        seen.add(halves[i]);
        split(halves[i], parts[i]);
      }
      for (int p = 0; p < kMostParts; ++p) {
        _mm512_storeu_si512(to + p * kTileElements, upper_halves(parts[0][p], parts[1][p]));
      }
      if (sums != nullptr) {
        sums[(tile + step) * kTileHeight + at] = simd::sum_lanes(halves[0] + halves[1]);
      }
    }
    result.usable = result.usable && seen.usable();
    result.count = std::max(result.count, seen.parts());
  }
  return result;
}

bool take_right(const RightFactor& right, int64_t k, int64_t panel, int64_t k0, int64_t depth,
                uint16_t* tiles) {
  if (right.integers.bits == 0) {
    const auto* halves = static_cast<const uint16_t*>(right.data) + panel * k * kPanelWidth;
    return pair_halves(halves + k0 * kPanelWidth, depth, tiles);
  }
  const bool zeros = right.integers.offsets == Offsets::ZeroPoints;
  if (right.integers.bits == 8) {
    (zeros ? expand<8, true> : expand<8, false>)(right, k, panel, k0, depth, tiles);
  } else {
    (zeros ? expand<4, true> : look_up)(right, k, panel, k0, depth, tiles);
  }
  return true;
}

#endif

}  // namespace ggml_delegate
