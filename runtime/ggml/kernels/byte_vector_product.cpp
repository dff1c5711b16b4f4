#include "byte_vector_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "half.h"
#include "panels.h"
#include "simd.h"

namespace ggml_delegate {

#if defined(GGD_INTEGERS_BY_FOUR)
namespace {

using simd::Vec;
using Bytes = __m512i;
using Integers = __m512i;

constexpr __mmask32 kAllPairs = ~__mmask32{0};
constexpr int64_t kTileRows = 8;
constexpr int64_t kBlock = 256;  // rows that are made ready at a time
constexpr int64_t kFour = 4;     // bytes that one lane of an instruction multiplies
constexpr int64_t kUnrolled = 32;
constexpr int64_t kLine = 64;

template <typename T>
T* align(std::vector<T>& space, int64_t count) {
  const auto spare = static_cast<int64_t>(kLine / sizeof(T));
  if (static_cast<int64_t>(space.size()) < count + spare) {
    space.resize(static_cast<size_t>(count + spare));
  }
  const auto address = reinterpret_cast<uintptr_t>(space.data());
  return reinterpret_cast<T*>((address + kLine - 1) / kLine * kLine);
}

inline Vec to_float(Integers v) { return _mm512_maskz_cvtepi32_ps(simd::kAllLanes, v); }

// Adds products of four elements each: the columns' are without a sign, the row's, at `row`, are
// the same for all columns.
inline Integers plus_dot(Integers sum, Bytes columns, const int8_t* row) {
#if defined(__clang__)
  int32_t four;
  std::memcpy(&four, row, sizeof(four));
  return _mm512_dpbusd_epi32(sum, columns, _mm512_set1_epi32(four));
#else  // GCC 12 would load them by an instruction of its own
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum)
      : "v"(columns), "m"(*reinterpret_cast<const int8_t (*)[kFour]>(row)));
  return sum;
#endif
}

// [4][16] bytes as [16][4].
inline Bytes columns_of(const int8_t* from) {
  constexpr __mmask64 kAll = ~__mmask64{0};
  alignas(kLine) static const uint8_t kTransposed[kLine] = {
      0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21,
      37, 53, 6,  22, 38, 54, 7,  23, 39, 55, 8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58,
      11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  return _mm512_maskz_permutexvar_epi8(kAll, _mm512_load_si512(kTransposed),
                                       _mm512_loadu_si512(from));
}

// Integers of a weight are multiplied as their distances from the least one, and what that adds to
// sums is taken off: so they are small, and of either sign.
int32_t offset_of(const IntegersParams& integers) { return integers.bits == 8 ? 128 : 8; }

// Whether the integers stand for such distances as they are stored.
bool without_sign(const IntegersParams& integers) {
  return integers.bits == 4 && integers.offsets == Offsets::Minimums;
}

// Integers of a weight as they are multiplied, kDepth of each column at a time, in kParts.
template <int Bits>
class Columns {
 public:
  static constexpr int64_t kDepth = Bits == 8 ? kFour : 2 * kFour;
  static constexpr int kParts = Bits == 8 ? 1 : 2;
  static constexpr int64_t kStepBytes = kFour * kPanelWidth;

  explicit Columns(const IntegersParams& integers)
      : flipped_(
            _mm512_set1_epi8(static_cast<char>(without_sign(integers) ? 0 : offset_of(integers)))) {
  }

  void load(const int8_t* from, Bytes (&parts)[kParts]) const {
    const Bytes bytes = columns_of(from);
    if constexpr (Bits == 8) {
      parts[0] = _mm512_xor_si512(bytes, flipped_);
    } else {
      parts[0] = low_bits(bytes);
      parts[1] = low_bits(_mm512_maskz_srli_epi16(kAllPairs, bytes, 4));
    }
  }

 private:
  // (bytes ^ flipped) & 15
  Bytes low_bits(Bytes bytes) const {
    constexpr int kXorAnd = 0x28;
    return _mm512_ternarylogic_epi32(bytes, flipped_, _mm512_set1_epi8(0xF), kXorAnd);
  }

  Bytes flipped_;  // bits that make a number with a sign its distance from the least one
};

// A product whose rows are made ready for all of its panels.
class Product {
 public:
  Product(const IntegerProduct& op, Range rows)
      : op_(op),
        rows_(rows),
        k_(op.params->k),
        group_(op.integers.group),
        groups_((k_ + group_ - 1) / group_),
        offset_(offset_of(op.integers)),
        tiles_((rows.last - rows.first + kTileRows - 1) / kTileRows) {
    thread_local std::vector<int8_t> bytes;
    thread_local std::vector<int32_t> starts;
    thread_local std::vector<float> sums;
    thread_local std::vector<float> table;
    row_bytes_ = align(bytes, tiles_ * k_ * kTileRows);
    starts_ = align(starts, tiles_ * groups_ * kTileRows);
    row_sums_ = align(sums, has_minimums() ? tiles_ * groups_ * kTileRows : 0);
    table_ = align(table, (2 * groups_ + 1) * kPanelWidth);
    for (int64_t tile = 0; tile < tiles_; ++tile) take_rows(tile);
  }

  void multiply(Range panels) {
    const bool by_eight = op_.integers.bits == 8;
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
      (by_eight ? &Product::take_panel<8> : &Product::take_panel<4>)(*this, panel);
    }
  }

 private:
  bool has_minimums() const { return op_.integers.offsets != Offsets::None; }
  // At least 4 rows, since there are more than kTileRows; they differ by one at most.
  Range tile_rows(int64_t tile) const {
    const Range part =
        part_of(rows_.last - rows_.first, static_cast<int>(tile), static_cast<int>(tiles_));
    return {rows_.first + part.first, rows_.first + part.last};
  }

  // Rows of a tile as [k / 4][kTileRows][4] with a sign, rows that it lacks as 0; by group and row,
  // what a sum starts with, for the offset of the columns; and if there are minimums, sums of
  // elements without their zero point.
  void take_rows(int64_t tile) {
    const Range rows = tile_rows(tile);
    int8_t* to = row_bytes_ + tile * k_ * kTileRows;
    alignas(kLine) int32_t zeros[kTileRows] = {};
    for (int64_t r = 0; r < kTileRows; ++r) {
      int8_t* fours = to + r * kFour;
      if (rows.first + r >= rows.last) {
        for (int64_t k = 0; k < k_; k += kFour) std::memset(fours + k * kTileRows, 0, kFour);
        continue;
      }
      const RowInteger* from = op_.row(rows.first + r);
      zeros[r] = op_.header(rows.first + r).zero - kRowOffset;
      for (int64_t k = 0; k < k_; k += kFour) {
        uint32_t four;
        std::memcpy(&four, from + k, kFour);
        four ^= 0x80808080U;
        std::memcpy(fours + k * kTileRows, &four, kFour);
      }
    }
    const __m256i zero = _mm256_load_si256(reinterpret_cast<const __m256i*>(zeros));
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t first = group * group_;
      const int64_t last = std::min(k_, first + group_);
      __m256i sum = _mm256_setzero_si256();
      for (int64_t k = first; k < last; k += kFour) {
        sum = _mm256_dpbusd_epi32(
            sum, _mm256_set1_epi8(1),
            _mm256_load_si256(reinterpret_cast<const __m256i*>(to + k * kTileRows)));
      }
      const int64_t at = (tile * groups_ + group) * kTileRows;
      const __m256i start = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-offset_));
      _mm256_store_si256(reinterpret_cast<__m256i*>(starts_ + at), start);
      if (has_minimums()) {
        const auto count = static_cast<int32_t>(last - first);
        const __m256i of_zeros = _mm256_mullo_epi32(zero, _mm256_set1_epi32(count));
        _mm256_store_ps(row_sums_ + at, _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, of_zeros)));
      }
    }
  }

  float* minimums() const { return table_ + groups_ * kPanelWidth; }
  float* sums_of_columns() const { return table_ + 2 * groups_ * kPanelWidth; }

  template <int Bits>
  const int8_t* weights(int64_t panel) const {
    return op_.weight + panel * (k_ * kPanelWidth * Bits / 8);
  }

  // The panel's scales and minimums as floats, [groups, 16] each, where (q - zero) * scale is
  // q * scale - zero * scale; and [16] sums of its columns, that the zero points of rows meet.
  template <int Bits>
  void take_table(int64_t panel) {
    const Columns<Bits> columns(op_.integers);
    const int8_t* from = weights<Bits>(panel);
    Vec of_columns{};
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t to = group * kPanelWidth;
      const int64_t at = panel * groups_ * kPanelWidth + to;
      const Vec scale = simd::load(op_.integers.scales, at);
      simd::store(table_ + to, scale);
      if (op_.integers.offsets == Offsets::ZeroPoints) {
        const __m128i stored =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(op_.integers.zeros + at));
        const Vec zeros = to_float(_mm512_maskz_cvtepi8_epi32(simd::kAllLanes, stored));
        simd::store(minimums() + to, -(zeros * scale));
      }
      if (op_.integers.offsets == Offsets::Minimums) {
        Vec minimum = simd::load(op_.integers.minimums, at);
        if (without_sign(op_.integers)) minimum += scale * static_cast<float>(offset_);
        simd::store(minimums() + to, minimum);
      }
      const int64_t last = std::min(k_, (group + 1) * group_);
      Integers sum = _mm512_setzero_si512();
      for (int64_t k = group * group_; k < last; k += Columns<Bits>::kDepth) {
        Bytes parts[Columns<Bits>::kParts];
        columns.load(from, parts);
        for (const Bytes part : parts) {
          sum = _mm512_dpbusd_epi32(sum, part, _mm512_set1_epi8(1));
        }
        from += Columns<Bits>::kStepBytes;
      }
      const auto count = static_cast<int32_t>(last - group * group_);
      of_columns += to_float(_mm512_sub_epi32(sum, _mm512_set1_epi32(count * offset_))) * scale;
    }
    simd::store(sums_of_columns(), of_columns);
  }

  template <int Bits>
  static void take_panel(Product& self, int64_t panel) {
    self.take_table<Bits>(panel);
    const int64_t bytes = self.k_ * kPanelWidth * Bits / 8;
    NextPanels next(self.weights<Bits>(panel) + bytes);
    const int64_t lines = (bytes + self.tiles_ * kLine - 1) / (self.tiles_ * kLine);
    for (int64_t tile = 0; tile < self.tiles_; ++tile) {
      for (int64_t i = 0; i < lines; ++i) next.fetch(kLine);
      self.choose<Bits>(tile, panel);
    }
  }

  template <int Bits>
  void choose(int64_t tile, int64_t panel) {
    const Range rows = tile_rows(tile);
    switch (rows.last - rows.first) {
      case 8:
        return multiply_tile<Bits, 8>(tile, panel);
      case 7:
        return multiply_tile<Bits, 7>(tile, panel);
      case 6:
        return multiply_tile<Bits, 6>(tile, panel);
      case 5:
        return multiply_tile<Bits, 5>(tile, panel);
      default:
        return multiply_tile<Bits, 4>(tile, panel);
    }
  }

  template <int Bits, int Rows>
  void multiply_tile(int64_t tile, int64_t panel) const {
    if (has_minimums()) return multiply_tile<Bits, Rows, true>(tile, panel);
    multiply_tile<Bits, Rows, false>(tile, panel);
  }

  template <int Bits, int Rows, bool HasMinimums>
  [[gnu::noinline]] void multiply_tile(int64_t tile, int64_t panel) const {
    using Of = Columns<Bits>;
    const Of columns(op_.integers);
    const int8_t* from = weights<Bits>(panel);
    const int8_t* rows = row_bytes_ + tile * k_ * kTileRows;
    const int32_t* starts = starts_ + tile * groups_ * kTileRows;
    const float* row_sums = row_sums_ + tile * groups_ * kTileRows;
    const float* table = table_;
    const int64_t minimums_at = groups_ * kPanelWidth;
    const int64_t k_all = k_;
    const int64_t group = group_;
    Vec totals[Rows] = {};
    for (int64_t k = 0; k < k_all;) {
      const int64_t end = std::min(k_all, k + group);
      Integers sums[Rows];
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) sums[r] = _mm512_set1_epi32(starts[r]);
      const auto add = [&]() __attribute__((always_inline)) {
        Bytes parts[Of::kParts];
        columns.load(from, parts);
#pragma GCC unroll 2
        for (int p = 0; p < Of::kParts; ++p) {
#pragma GCC unroll 8
          for (int r = 0; r < Rows; ++r) {
            sums[r] = plus_dot(sums[r], parts[p], rows + (p * kTileRows + r) * kFour);
          }
        }
        from += Of::kStepBytes;
        rows += Of::kDepth * kTileRows;
      };
      for (; k + kUnrolled <= end; k += kUnrolled) {
#pragma GCC unroll 8
        for (int64_t i = 0; i < kUnrolled; i += Of::kDepth) add();
      }
      for (; k < end; k += Of::kDepth) add();
      const Vec scale = simd::load(table);
      Vec minimum;
      if constexpr (HasMinimums) minimum = simd::load(table + minimums_at);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        totals[r] += to_float(sums[r]) * scale;
        if constexpr (HasMinimums) totals[r] += simd::splat(row_sums[r]) * minimum;
      }
      starts += kTileRows;
      row_sums += kTileRows;
      table += kPanelWidth;
    }
    finish<Rows>(totals, tile_rows(tile).first, panel);
  }

  template <int Rows>
  [[gnu::always_inline]] void finish(Vec (&totals)[Rows], int64_t row0, int64_t panel) const {
    const IntegerLinearParams& params = *op_.params;
    const Vec min = simd::splat(params.clamp.min);
    const Vec max = simd::splat(params.clamp.max);
    const Vec of_columns = simd::load(sums_of_columns());
    const int64_t column = panel * kPanelWidth;
    const int64_t count = std::min(params.n - column, kPanelWidth);
    Vec bias{};
    if (op_.bias != nullptr) bias = simd::load_part(op_.bias + column, count);
    float* to = op_.result + row0 * params.n + column;
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const RowHeader& header = op_.header(row0 + r);
      const Vec zero = simd::splat(static_cast<float>(header.zero - kRowOffset));
      const Vec sum = totals[r] - zero * of_columns;
      const Vec result = simd::clamp(sum * simd::splat(header.scale) + bias, min, max);
      simd::store_part(to + r * params.n, result, count);
    }
    if (params.clamp.precision == Precision::Float32) return;
    for (int r = 0; r < Rows; ++r) {
      simd::round_to(params.clamp.precision, to + r * params.n, count);
    }
  }

  const IntegerProduct& op_;
  Range rows_;
  int64_t k_;
  int64_t group_;
  int64_t groups_;
  int32_t offset_;
  int64_t tiles_;
  int8_t* row_bytes_;
  int32_t* starts_;
  float* row_sums_;
  float* table_;
};

}  // namespace

bool byte_vectors_are_faster(const IntegerProduct& op, Range rows) {
  // Long groups are scaled so rarely that vectors do as well without what is made ready here.
  constexpr int64_t kLongGroup = 64;
  constexpr int64_t kRowsOfLong = 24;
  const int64_t least = op.integers.group > kLongGroup ? kRowsOfLong : kTileRows + 1;
  return rows.last - rows.first >= least;
}

void multiply_bytes_by_vectors(const IntegerProduct& op, Range rows, Range panels) {
  const int64_t count = rows.last - rows.first;
  const auto blocks = static_cast<int>((count + kBlock - 1) / kBlock);
  for (int i = 0; i < blocks; ++i) {
    const Range block = part_of(count, i, blocks, kTileRows);
    Product(op, {rows.first + block.first, rows.first + block.last}).multiply(panels);
  }
}

#else

bool byte_vectors_are_faster(const IntegerProduct&, Range) { return false; }
void multiply_bytes_by_vectors(const IntegerProduct&, Range, Range) {}

#endif

}  // namespace ggml_delegate
