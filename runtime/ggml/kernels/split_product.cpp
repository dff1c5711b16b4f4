#include "split_product.h"

#include <algorithm>

#include "half.h"
#include "panels.h"
#include "simd.h"
#include "split_rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

// A smaller product takes about as long as to split the rows.
constexpr int64_t kLeastColumns = 64;

#if defined(GGD_INTEGERS_BY_FOUR)

using simd::kAllLanes;
using simd::Vec;

using Integers = __m512i;

constexpr int64_t kStepBytes = 64;  // of a panel, that are loaded at a time
constexpr int panels_for(int rows) { return rows == 1 ? 4 : 2; }

inline Vec to_float(Integers v) { return _mm512_maskz_cvtepi32_ps(kAllLanes, v); }

// Bytes of a weight, raised so that they have no sign, as the instruction takes one factor. The
// elements that one instruction takes of a column have become neighbours. Integers of 4 bits with
// minimums have no sign anyway.
template <int Bits, Offsets Kind>
struct Step {
  static constexpr int kParts = Bits == 8 ? 1 : 2;
  static constexpr int64_t kDepth = 4 * kParts;
  static constexpr bool kUnsigned = Bits == 4 && Kind == Offsets::Minimums;
  static constexpr bool kZeroPoints = Kind == Offsets::ZeroPoints;
  static constexpr int kRaised = Bits == 8 ? kRaised8Bits : kRaised4Bits;
  Integers bytes;

  void load(const int8_t* from) {
    alignas(64) static const uint8_t kTransposed[64] = {
        0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21,
        37, 53, 6,  22, 38, 54, 7,  23, 39, 55, 8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58,
        11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
    bytes = _mm512_maskz_permutexvar_epi8(~__mmask64{0}, _mm512_load_si512(kTransposed),
                                          _mm512_loadu_si512(from));
  }
  Integers columns(int part) const {
    if constexpr (Bits == 8) {
      return _mm512_xor_si512(bytes, _mm512_set1_epi8(static_cast<char>(0x80)));
    }
    const Integers half = part == 0 ? bytes : _mm512_maskz_srli_epi16(~__mmask32{0}, bytes, 4);
    if constexpr (kUnsigned) return _mm512_and_si512(half, _mm512_set1_epi8(0xF));
    constexpr int kXorAnd = 0x28;  // (a ^ b) & c
    return _mm512_ternarylogic_epi32(half, _mm512_set1_epi8(8), _mm512_set1_epi8(0xF), kXorAnd);
  }
};

inline Integers splat_four(const int8_t* from) {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm512_set1_epi32(bytes);
}

// What the integers of a panel's columns are raised by, which their zero points add to: 0 to 255.
template <typename Of>
inline Integers offset_of(const int8_t* zeros) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros));
  return _mm512_add_epi32(_mm512_maskz_cvtepi8_epi32(kAllLanes, bytes),
                          _mm512_set1_epi32(Of::kRaised));
}

// What sums of a digit's products start from: minus the sum of the digits times the offset, which
// is read only where there are zero points.
template <typename Of>
inline Integers start(const SplitBlock& block, int digit, Integers offset) {
  if constexpr (Of::kUnsigned) return _mm512_setzero_si512();
  if constexpr (!Of::kZeroPoints) return _mm512_set1_epi32(block.raised_sums[digit]);
  return _mm512_dpwssd_epi32(_mm512_setzero_si512(), offset,
                             _mm512_set1_epi32(block.minus_sums[digit]));
}

// One panel's sums of products with the last digit, in units of the second. Out of line: few blocks
// have it, and the others need the registers.
template <typename Of>
[[gnu::noinline]] Vec last_digit(const SplitBlock& block, const int8_t* weights, Integers offset) {
  Integers sum = start<Of>(block, kFewDigits, offset);
  const int8_t* digits = block.digits[kFewDigits];
  for (int64_t k = 0; k < kSplitBlock; k += Of::kDepth, weights += kStepBytes) {
    Of step;
    step.load(weights);
#pragma GCC unroll 2
    for (int part = 0; part < Of::kParts; ++part) {
      sum = _mm512_dpbusd_epi32(sum, step.columns(part), splat_four(digits + k + 4 * part));
    }
  }
  return to_float(sum) * 0x1p-16F;
}

struct Product {
  const Gemm* gemm;
  const char* rows;

  const SplitBlock* blocks(int64_t row) const {
    const char* from = rows + row * split_row_bytes(gemm->k);
    return reinterpret_cast<const SplitBlock*>(from + sizeof(SplitRowHeader));
  }
};

// One block of Rows rows times Panels panels, in the weight's integers, onto `sums`.
template <typename Of, int Rows, int Panels>
[[gnu::always_inline]] inline void add_block(const SplitBlock* const (&rows)[Rows],
                                             const int8_t* weights, int64_t panel_bytes,
                                             NextPanels& next, const Integers (&offset)[Panels],
                                             Vec (&sums)[Rows][Panels]) {
  Integers products[Rows][Panels][kFewDigits];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int d = 0; d < kFewDigits; ++d) {
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) products[r][p][d] = start<Of>(*rows[r], d, offset[p]);
    }
  }
  const int8_t* from = weights;
#pragma GCC unroll 2
  for (int64_t k = 0; k < kSplitBlock; k += Of::kDepth, from += kStepBytes) {
    Of steps[Panels];
#pragma GCC unroll 4
    for (int p = 0; p < Panels; ++p) {
      next.fetch(kStepBytes);
      steps[p].load(from + p * panel_bytes);
    }
#pragma GCC unroll 2
    for (int part = 0; part < Of::kParts; ++part) {
      Integers columns[Panels];
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) columns[p] = steps[p].columns(part);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (int d = 0; d < kFewDigits; ++d) {
          const Integers digits = splat_four(rows[r]->digits[d] + k + 4 * part);
#pragma GCC unroll 4
          for (int p = 0; p < Panels; ++p) {
            products[r][p][d] = _mm512_dpbusd_epi32(products[r][p][d], columns[p], digits);
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const Vec unit = simd::splat(rows[r]->unit * 0x1p-8F);  // of the second digit
#pragma GCC unroll 4
    for (int p = 0; p < Panels; ++p) {
      // At most 32 * 255 * 128 * 257: they fit together.
      const Integers first = _mm512_maskz_slli_epi32(kAllLanes, products[r][p][0], 8);
      const Integers upper = _mm512_add_epi32(first, products[r][p][1]);
      Vec sum = to_float(upper) + to_float(products[r][p][2]) * 0x1p-8F;
      if (__builtin_expect(rows[r]->has_last, 0) != 0) {
        sum += last_digit<Of>(*rows[r], weights + p * panel_bytes, offset[p]);
      }
      sums[r][p] += sum * unit;
    }
  }
}

// Panels panels from number `first` on, all of k.
template <int Bits, Offsets Kind, int Rows, int Panels>
void multiply(const Product& product, int64_t first) {
  using Of = Step<Bits, Kind>;
  constexpr bool kMinimums = Kind == Offsets::Minimums;
  constexpr int64_t kBlockBytes = kSplitBlock * kPanelWidth * Bits / 8;
  const Gemm& op = *product.gemm;
  const IntegersParams& integers = op.right.integers;
  const int64_t panel_bytes = op.k * kPanelWidth * Bits / 8;
  const int64_t groups = (op.k + integers.group - 1) / integers.group;
  const auto* weights = static_cast<const int8_t*>(op.right.data) + first * panel_bytes;
  NextPanels next(weights + Panels * panel_bytes);
  NextScales next_scales(integers.scales, (first + Panels) * groups);
  NextScales next_minimums(integers.minimums, (first + Panels) * groups);
  const SplitBlock* rows[Rows];
  for (int r = 0; r < Rows; ++r) rows[r] = product.blocks(r);
  Vec totals[Rows][Panels] = {};
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t k = group * integers.group;
    int64_t blocks = (std::min(op.k, k + integers.group) - k) / kSplitBlock;
    const auto at = [&](int p) { return ((first + p) * groups + group) * kPanelWidth; };
    Integers offset[Panels] = {};
    if constexpr (Of::kZeroPoints) {
      for (int p = 0; p < Panels; ++p) offset[p] = offset_of<Of>(integers.zeros + at(p));
    }
    Vec sums[Rows][Panels] = {};
    [[maybe_unused]] float of_rows[Rows] = {};
    for (; blocks > 0; --blocks) {
      add_block<Of, Rows, Panels>(rows, weights, panel_bytes, next, offset, sums);
      for (int r = 0; r < Rows; ++r) {
        if constexpr (kMinimums) of_rows[r] += rows[r]->sum;
        ++rows[r];
      }
      weights += kBlockBytes;
    }
    for (int p = 0; p < Panels; ++p) {
      next_scales.fetch_row();
      if constexpr (kMinimums) next_minimums.fetch_row();
    }
    Vec scales[Panels];
    simd::load(integers.scales, at(0), groups * kPanelWidth, scales);
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) totals[r][p] += sums[r][p] * scales[p];
    }
    if constexpr (kMinimums) {
      Vec minimums[Panels];
      simd::load(integers.minimums, at(0), groups * kPanelWidth, minimums);
      for (int r = 0; r < Rows; ++r) {
        const Vec of_row = simd::splat(of_rows[r]);
#pragma GCC unroll 4
        for (int p = 0; p < Panels; ++p) totals[r][p] += of_row * minimums[p];
      }
    }
  }
  const Vec min = simd::splat(op.clamp.min);
  const Vec max = simd::splat(op.clamp.max);
  for (int p = 0; p < Panels; ++p) {
    const int64_t column = (first + p) * kPanelWidth;
    const int64_t count = std::min(op.n - column, kPanelWidth);
    Vec bias{};
    if (op.bias != nullptr) bias = simd::load_part(op.bias + column, count);
    for (int r = 0; r < Rows; ++r) {
      float* to = op.result + r * op.result_stride + column;
      simd::store_part(to, simd::clamp(totals[r][p] + bias, min, max), count);
      simd::round_to(op.clamp.precision, to, count);
    }
  }
}

template <int Bits, Offsets Kind, int Rows>
void multiply_all(const Product& product, Range panels) {
  constexpr int kMost = panels_for(Rows);
  int64_t first = panels.first;
  for (; first + kMost <= panels.last; first += kMost) {
    multiply<Bits, Kind, Rows, kMost>(product, first);
  }
  if constexpr (kMost > 2) {
    if (first + 2 <= panels.last) {
      multiply<Bits, Kind, Rows, 2>(product, first);
      first += 2;
    }
  }
  if (first < panels.last) multiply<Bits, Kind, Rows, 1>(product, first);
}

template <int Bits, Offsets Kind>
void multiply_rows(const Product& product, Range panels) {
  if (product.gemm->m == 1) return multiply_all<Bits, Kind, 1>(product, panels);
  multiply_all<Bits, Kind, kMostSplitRows>(product, panels);
}

template <int Bits>
void multiply_kind(const Product& product, Range panels) {
  switch (product.gemm->right.integers.offsets) {
    case Offsets::None:
      return multiply_rows<Bits, Offsets::None>(product, panels);
    case Offsets::ZeroPoints:
      return multiply_rows<Bits, Offsets::ZeroPoints>(product, panels);
    case Offsets::Minimums:
      return multiply_rows<Bits, Offsets::Minimums>(product, panels);
  }
}

#endif

}  // namespace

bool splits_rows(const IntegersLayout& integers, int64_t m, int64_t n, int64_t k) {
  const bool whole = k % kSplitBlock == 0 && integers.group % kSplitBlock == 0;
  return kSplitsRows && integers.bits != 0 && whole && m <= kMostSplitRows && n >= kLeastColumns;
}

bool split_rows_times_integers([[maybe_unused]] const Gemm& op, [[maybe_unused]] const void* rows,
                               [[maybe_unused]] int ith, [[maybe_unused]] int nth) {
#if defined(GGD_INTEGERS_BY_FOUR)
  const Product product{&op, static_cast<const char*>(rows)};
  for (int64_t i = 0; i < op.m; ++i) {
    const char* row = product.rows + i * split_row_bytes(op.k);
    if (reinterpret_cast<const SplitRowHeader*>(row)->usable == 0) return false;
  }
  const Range panels = part_of((op.n + kPanelWidth - 1) / kPanelWidth, ith, nth);
  (op.right.integers.bits == 8 ? multiply_kind<8> : multiply_kind<4>)(product, panels);
  return true;
#else
  return false;
#endif
}

}  // namespace ggml_delegate
