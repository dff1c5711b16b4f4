#include "integer_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../processor.h"
#include "byte_tile_product.h"
#include "byte_vector_product.h"
#include "half.h"
#include "panels.h"
#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

// Sums of so many products of 8 bits each fit 32 bits.
constexpr int64_t kMostOfGroup = 1 << 15;

#if defined(GGD_INTEGERS_BY_FOUR) || defined(GGD_INTEGERS_BY_TWO)

using simd::Vec;

constexpr int kVecs = static_cast<int>(kPanelWidth) / simd::kLanes;  // sums of a panel

// What a step along k reads of a panel, and how it is multiplied. A lane sums up one column, so
// that the elements of a column that one instruction takes have to become neighbours.
#if defined(GGD_INTEGERS_BY_FOUR)

using Integers = __m512i;
constexpr int kMostRows = 8;
constexpr int panels_for(int rows) { return rows > 4 ? 2 : 4; }
// Up to such groups all sums stay in registers: storing some would take as long as to add them up.
constexpr int64_t kShortGroup = 64;
// Rows still have their zero point in them: what that adds to a sum is taken off at its end.
constexpr bool kRowsHaveZeros = true;

constexpr int kMostSumsInline = 8;
inline Integers ones() { return _mm512_set1_epi8(1); }
inline Integers splat_integer(int32_t value) { return _mm512_set1_epi32(value); }
inline Vec to_float(Integers v) { return _mm512_maskz_cvtepi32_ps(simd::kAllLanes, v); }
// Of four elements each, the row's without a sign.
inline Integers plus_dot(Integers sum, Integers row, Integers columns) {
  return _mm512_dpbusd_epi32(sum, row, columns);
}

// Sums of so many weights fit 16 bits.
constexpr int64_t kMediumGroup = 255;
// What is left of sums once a row's zero point, times sums of the weights, is taken off.
inline Integers without_zero(Integers sum, int32_t zero, Integers columns, int64_t group) {
  if (group <= kMediumGroup) {  // the upper halves of the lanes meet zeros
    return _mm512_dpwssd_epi32(sum, columns, splat_integer(-zero & 0xFFFF));
  }
  const Integers product = _mm512_maskz_mullo_epi32(simd::kAllLanes, columns, splat_integer(zero));
  return _mm512_sub_epi32(sum, product);
}

// [4][16] bytes as [16][4].
inline Integers four_rows(const int8_t* from) {
  constexpr __mmask64 kAll = ~__mmask64{0};
  alignas(64) static const uint8_t kTransposed[64] = {
      0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21,
      37, 53, 6,  22, 38, 54, 7,  23, 39, 55, 8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58,
      11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  return _mm512_maskz_permutexvar_epi8(kAll, _mm512_load_si512(kTransposed),
                                       _mm512_loadu_si512(from));
}

template <int Bits, Offsets Kind>
struct Step {
  static constexpr int64_t kDepth = Bits == 8 ? 4 : 8;
  static constexpr int kParts = Bits == 8 ? 1 : 2;
  // Of 4 bits, those with a sign stay at the upper end of their bytes.
  static constexpr bool kUnsigned = Bits == 4 && Kind == Offsets::Minimums;
  static constexpr float kUnit = Bits == 8 || kUnsigned ? 1.0F : 1.0F / 16;
  Integers bytes;

  void load(const int8_t* from) { bytes = four_rows(from); }
  Integers columns(int part, int /*vec*/) const {
    constexpr __mmask32 kAll = ~__mmask32{0};
    if constexpr (Bits == 8) return bytes;
    if constexpr (kUnsigned) {
      const Integers low = part == 0 ? bytes : _mm512_maskz_srli_epi16(kAll, bytes, 4);
      return _mm512_and_si512(low, _mm512_set1_epi8(0xF));
    }
    const Integers half = part == 0 ? _mm512_maskz_slli_epi16(kAll, bytes, 4) : bytes;
    return _mm512_and_si512(half, _mm512_set1_epi8(static_cast<char>(0xF0)));
  }
};

#else

constexpr bool kRowsHaveZeros = false;
constexpr int kMostSumsInline = 0;
constexpr int64_t kShortGroup = 0;
#if defined(__AVX512F__)
using Integers = __m512i;
constexpr int kMostRows = 4;
constexpr int panels_for(int) { return 4; }
inline Integers splat_integer(int32_t value) { return _mm512_set1_epi32(value); }
inline Integers ones() { return _mm512_set1_epi16(1); }
inline Vec to_float(Integers v) { return _mm512_maskz_cvtepi32_ps(simd::kAllLanes, v); }
// Of two elements of 16 bits each.
inline Integers plus_dot(Integers sum, Integers row, Integers columns) {
  return _mm512_add_epi32(sum, _mm512_maskz_madd_epi16(simd::kAllLanes, row, columns));
}
#else
using Integers = __m256i;
constexpr int kMostRows = 4;
constexpr int panels_for(int rows) { return rows == 1 ? 2 : 1; }
inline Integers splat_integer(int32_t value) { return _mm256_set1_epi32(value); }
inline Integers ones() { return _mm256_set1_epi16(1); }
inline Vec to_float(Integers v) { return _mm256_cvtepi32_ps(v); }
inline Integers plus_dot(Integers sum, Integers row, Integers columns) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(row, columns));
}
#endif

template <int Bits, Offsets Kind>
struct Step {
  static constexpr int64_t kDepth = 2;
  static constexpr int kParts = 1;
  static constexpr float kUnit = 1;
  __m128i first, second;

  void load(const int8_t* from) {
    first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (Bits == 8) {
      second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + kPanelWidth));
    } else {
      const __m128i low = _mm_set1_epi8(0xF);
      second = _mm_and_si128(_mm_srli_epi16(first, 4), low);
      first = _mm_and_si128(first, low);
      if constexpr (Kind != Offsets::Minimums) {
        const __m128i signs = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
        second = _mm_shuffle_epi8(signs, second);
        first = _mm_shuffle_epi8(signs, first);
      }
    }
  }
  Integers columns(int /*part*/, [[maybe_unused]] int vec) const {
    const __m128i low = _mm_unpacklo_epi8(first, second);
    const __m128i high = _mm_unpackhi_epi8(first, second);
#if defined(__AVX512F__)
    return _mm512_maskz_cvtepi8_epi16(~__mmask32{0}, _mm256_set_m128i(high, low));
#else
    return _mm256_cvtepi8_epi16(vec == 0 ? low : high);
#endif
  }
};

#endif

inline Integers load_row(const RowInteger* from) {
  int32_t bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return splat_integer(bytes);
}

// The zero points of a panel's columns, a number to a lane.
inline Vec zeros_at(const int8_t* from) {
#if defined(__AVX512F__)
  return to_float(_mm512_maskz_cvtepi8_epi32(
      simd::kAllLanes, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#endif
}

// Sums over one group. Where rows still have their zero points in them, the sums of the columns
// alone are needed as well.
template <int Rows, int Vecs>
struct GroupSums {
  Integers products[Rows][Vecs];
  Integers columns[Vecs];
};

inline int64_t groups_of(const IntegerProduct& op) {
  return (op.params->k + op.integers.group - 1) / op.integers.group;
}

template <int Bits, Offsets Kind, int Rows, int Panels>
[[gnu::always_inline]] inline void sum_group(const RowInteger* const (&rows)[Rows], int64_t first,
                                             int64_t last, const int8_t* weights,
                                             int64_t panel_bytes, NextPanels& next,
                                             GroupSums<Rows, Panels * kVecs>& result) {
  using Of = Step<Bits, Kind>;
  constexpr int kCount = Panels * kVecs;
  constexpr int64_t kStepBytes = Of::kDepth * kPanelWidth * Bits / 8;
  Integers products[Rows][kCount] = {};
  [[maybe_unused]] Integers of_columns[kCount] = {};
  const auto add = [&](int64_t k) __attribute__((always_inline)) {
    Of steps[Panels];
#pragma GCC unroll 4
    for (int p = 0; p < Panels; ++p) {
      if constexpr (Rows == 1) next.fetch(kStepBytes);
      steps[p].load(weights + p * panel_bytes);
    }
#pragma GCC unroll 2
    for (int part = 0; part < Of::kParts; ++part) {
      Integers columns[kCount];
#pragma GCC unroll 8
      for (int v = 0; v < kCount; ++v) {
        columns[v] = steps[v / kVecs].columns(part, v % kVecs);
        if constexpr (kRowsHaveZeros) of_columns[v] = plus_dot(of_columns[v], ones(), columns[v]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const Integers row = load_row(rows[r] + k + part * (Of::kDepth / Of::kParts));
#pragma GCC unroll 8
        for (int v = 0; v < kCount; ++v) products[r][v] = plus_dot(products[r][v], row, columns[v]);
      }
    }
    weights += kStepBytes;
  };
  // Of a loop whose count is known the sums stay where they are.
  constexpr int64_t kUsual = 32;
  if (Rows == kMostRows && last - first == kUsual) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kUsual; i += Of::kDepth) add(first + i);
  } else {
    for (int64_t k = first; k < last; k += Of::kDepth) add(k);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kCount; ++v) {
    if constexpr (kRowsHaveZeros) result.columns[v] = of_columns[v];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) result.products[r][v] = products[r][v];
  }
}

// Out of line, so that all registers are for the sums.
template <int Bits, Offsets Kind, int Rows, int Panels>
[[gnu::noinline]] void sum_long_group(const RowInteger* const (&rows)[Rows], int64_t first,
                                      int64_t last, const int8_t* weights, int64_t panel_bytes,
                                      NextPanels& next, GroupSums<Rows, Panels * kVecs>& result) {
  sum_group<Bits, Kind, Rows, Panels>(rows, first, last, weights, panel_bytes, next, result);
}

// Rows x Panels of the result, all of k.
template <int Bits, Offsets Kind, int Rows, int Panels>
void multiply(const IntegerProduct& op, int64_t row0, int64_t panel0) {
  constexpr int kCount = Panels * kVecs;
  const int64_t k_all = op.params->k;
  const int64_t panel_bytes = k_all * kPanelWidth * Bits / 8;
  const int64_t size = op.integers.group;
  const int64_t groups = groups_of(op);
  const RowInteger* rows[Rows];
  [[maybe_unused]] int32_t row_zeros[Rows];
  [[maybe_unused]] const float* row_sums = nullptr;
  if constexpr (Kind != Offsets::None) row_sums = op.row_sums + row0 * groups;
  for (int r = 0; r < Rows; ++r) {
    rows[r] = op.row(row0 + r);
    row_zeros[r] = op.header(row0 + r).zero;
  }
  Vec totals[Rows][kCount] = {};
  const int8_t* weights = op.weight + panel0 * panel_bytes;
  NextPanels next(weights + Panels * panel_bytes);
  NextScales next_scales(op.integers.scales, (panel0 + Panels) * groups);
  NextScales next_minimums(op.integers.minimums, (panel0 + Panels) * groups);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t k = group * size;
    const int64_t end = std::min(k_all, k + size);
    if constexpr (Rows == 1) {
      for (int p = 0; p < Panels; ++p) {
        next_scales.fetch_row();
        if constexpr (Kind == Offsets::Minimums) next_minimums.fetch_row();
      }
    }
    GroupSums<Rows, kCount> sums;
    const int8_t* from = weights + k * kPanelWidth * Bits / 8;
    if constexpr (Rows * kCount <= kMostSumsInline) {
      sum_group<Bits, Kind, Rows, Panels>(rows, k, end, from, panel_bytes, next, sums);
    } else {
      sum_long_group<Bits, Kind, Rows, Panels>(rows, k, end, from, panel_bytes, next, sums);
    }
#if defined(GGD_INTEGERS_BY_FOUR)
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kCount; ++v) {
        sums.products[r][v] =
            without_zero(sums.products[r][v], row_zeros[r], sums.columns[v], size);
      }
    }
#endif
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) {
      const int64_t at =
          ((panel0 + v / kVecs) * groups + group) * kPanelWidth + v % kVecs * simd::kLanes;
      constexpr float kUnit = Step<Bits, Kind>::kUnit;
      const Vec scale = simd::load(op.integers.scales, at) * kUnit;
      [[maybe_unused]] Vec zeros{};
      if constexpr (Kind == Offsets::ZeroPoints) zeros = zeros_at(op.integers.zeros + at) / kUnit;
      [[maybe_unused]] Vec minimums{};
      if constexpr (Kind == Offsets::Minimums) minimums = simd::load(op.integers.minimums, at);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        Vec sum = to_float(sums.products[r][v]);
        if constexpr (Kind == Offsets::None) {
          totals[r][v] += sum * scale;
        } else {
          const Vec of_row = simd::splat(row_sums[r * groups + group]);
          if constexpr (Kind == Offsets::ZeroPoints) sum -= of_row * zeros;
          totals[r][v] += sum * scale;
          if constexpr (Kind == Offsets::Minimums) totals[r][v] += of_row * minimums;
        }
      }
    }
  }
  const Vec min = simd::splat(op.params->clamp.min);
  const Vec max = simd::splat(op.params->clamp.max);
  for (int v = 0; v < kCount; ++v) {
    const int64_t column = panel0 * kPanelWidth + v * simd::kLanes;
    const int64_t count = std::clamp<int64_t>(op.params->n - column, 0, simd::kLanes);
    if (count == 0) break;
    Vec bias{};
    if (op.bias != nullptr) bias = simd::load_part(op.bias + column, count);
    for (int r = 0; r < Rows; ++r) {
      const RowHeader& header = op.header(row0 + r);
      const Vec sum = totals[r][v];
      float* to = op.result + (row0 + r) * op.params->n + column;
      simd::store_part(to, simd::clamp(sum * simd::splat(header.scale) + bias, min, max), count);
      simd::round_to(op.params->clamp.precision, to, count);
    }
  }
}

using Kernel = void (*)(const IntegerProduct& op, int64_t row0, int64_t panel0);

// For at most kMostRows rows and panels_for(rows) panels: how many of each it takes, and the
// kernel.
struct Chosen {
  int64_t rows;
  int64_t panels;
  Kernel kernel;
};

template <int Bits, Offsets Kind, int Rows>
Chosen choose_panels(int64_t panels) {
  constexpr int kMost = panels_for(Rows);
  if (panels >= kMost) return {Rows, kMost, multiply<Bits, Kind, Rows, kMost>};
  if constexpr (kMost > 2) {
    if (panels >= 2) return {Rows, 2, multiply<Bits, Kind, Rows, 2>};
  }
  return {Rows, 1, multiply<Bits, Kind, Rows, 1>};
}

template <int Bits, Offsets Kind>
Chosen choose(int64_t rows, int64_t panels) {
  if constexpr (kMostRows > 4) {
    if (rows >= kMostRows) return choose_panels<Bits, Kind, kMostRows>(panels);
  }
  switch (std::min<int64_t>(rows, 4)) {
    case 1:
      return choose_panels<Bits, Kind, 1>(panels);
    case 2:
      return choose_panels<Bits, Kind, 2>(panels);
    case 3:
      return choose_panels<Bits, Kind, 3>(panels);
    default:
      return choose_panels<Bits, Kind, 4>(panels);
  }
}

template <int Bits>
Chosen choose(Offsets offsets, int64_t rows, int64_t panels) {
  switch (offsets) {
    case Offsets::ZeroPoints:
      return choose<Bits, Offsets::ZeroPoints>(rows, panels);
    case Offsets::Minimums:
      return choose<Bits, Offsets::Minimums>(rows, panels);
    default:
      return choose<Bits, Offsets::None>(rows, panels);
  }
}

Chosen choose(const IntegersParams& integers, int64_t rows, int64_t panels) {
  return (integers.bits == 8 ? choose<8> : choose<4>)(integers.offsets, rows, panels);
}

// The sums of a product's rows, as IntegerProduct has them; valid until the thread's next call.
const float* sums_of_rows(const IntegerProduct& op, Range rows) {
  thread_local std::vector<float> sums;
  const int64_t k_all = op.params->k;
  const int64_t size = op.integers.group;
  const int64_t groups = groups_of(op);
  sums.resize(static_cast<size_t>(rows.last * groups));
  for (int64_t i = rows.first; i < rows.last; ++i) {
    const RowInteger* row = op.row(i);
    float* to = sums.data() + i * groups;
    for (int64_t k = 0; k < k_all; k += size) {
      const int64_t end = std::min(k_all, k + size);
      int32_t sum = 0;
      for (int64_t at = k; at < end; ++at) sum += row[at];
      *to++ = static_cast<float>(sum - op.header(i).zero * static_cast<int32_t>(end - k));
    }
  }
  return sums.data();
}

void multiply_all(const IntegerProduct& op, Range rows, Range panels) {
  const int64_t height = std::min<int64_t>(rows.last - rows.first, kMostRows);
  int64_t most = panels_for(static_cast<int>(height));
  if (op.integers.group <= kShortGroup) {
    most = std::clamp<int64_t>(kMostSumsInline / (height * kVecs), 1, most);
  }
  for (int64_t panel = panels.first; panel < panels.last;) {
    const int64_t group = std::min(most, panels.last - panel);
    for (int64_t row = rows.first; row < rows.last;) {
      int64_t taken = 0;
      for (int64_t done = 0; done < group;) {
        const Chosen chosen = choose(op.integers, rows.last - row, group - done);
        chosen.kernel(op, row, panel + done);
        done += chosen.panels;
        taken = chosen.rows;
      }
      row += taken;
    }
    panel += group;
  }
}

#endif

}  // namespace

bool multiplies_integers(const IntegersLayout& integers, int64_t k) {
  const bool aligned = k % kRowGrain == 0 && integers.group % kRowGrain == 0;
  return kMultipliesIntegers && integers.bits != 0 && aligned && integers.group <= kMostOfGroup;
}

bool has_byte_products() {
#if defined(GGD_INTEGERS_BY_FOUR)
  return true;
#else
  return false;
#endif
}

void integer_linear_kernel([[maybe_unused]] ggml_tensor* result, [[maybe_unused]] int ith,
                           [[maybe_unused]] int nth, [[maybe_unused]] void* userdata) {
#if defined(GGD_INTEGERS_BY_FOUR) || defined(GGD_INTEGERS_BY_TWO)
  const auto& params = *static_cast<const IntegerLinearParams*>(userdata);
  IntegerProduct op{};
  op.params = &params;
  op.rows = static_cast<const char*>(result->src[0]->data);
  op.weight = static_cast<const int8_t*>(result->src[1]->data);
  int next = 2;
  if (params.has_bias) op.bias = static_cast<const float*>(result->src[next++]->data);
  op.integers = params.integers.read(result->src + next);
  op.result = static_cast<float*>(result->data);
  const int64_t panel_count = (params.n + kPanelWidth - 1) / kPanelWidth;
  Range rows{0, params.m};
  Range panels{0, panel_count};
  // Threads share the columns, so that each reads a part of the weight; the rows if they are more.
  if (panel_count >= 2 * nth || params.m < 2 * kMostRows * nth) {
    panels = part_of(panel_count, ith, nth);
  } else {
    rows = part_of(params.m, ith, nth, kMostRows);
  }
  if (byte_tiles_are_faster(op, rows, panels)) {
    multiply_bytes_by_tiles(op, rows, panels);
  } else if (byte_vectors_are_faster(op, rows)) {
    multiply_bytes_by_vectors(op, rows, panels);
  } else {
    if (op.integers.offsets != Offsets::None) op.row_sums = sums_of_rows(op, rows);
    multiply_all(op, rows, panels);
  }
#endif
}

}  // namespace ggml_delegate
