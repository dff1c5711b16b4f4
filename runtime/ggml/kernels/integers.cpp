#include "integers.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "half.h"
#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::IntVec;
using simd::Vec;

constexpr int kVecs = static_cast<int>(kPanelWidth) / simd::kLanes;  // per panel

inline Vec to_float(IntVec integers) { return __builtin_convertvector(integers, Vec); }

// The integers of 4 bits at the lower end of each lane, as floats. Unsigned: from 0 to 15.
template <bool Unsigned>
inline Vec integers_at_low_end(IntVec lanes) {
#if defined(__AVX512F__)
  // A table's index is as many bits, and all others are ignored.
  constexpr float kSign = Unsigned ? 0 : 16;
  const __m512 values = {0,          1,          2,          3,         4,          5,
                         6,          7,          8 - kSign,  9 - kSign, 10 - kSign, 11 - kSign,
                         12 - kSign, 13 - kSign, 14 - kSign, 15 - kSign};
  return reinterpret_cast<Vec>(
      _mm512_maskz_permutexvar_ps(simd::kAllLanes, reinterpret_cast<__m512i>(lanes), values));
#else
  return to_float(Unsigned ? lanes & 0xF : lanes << 28 >> 28);
#endif
}

// A panel of a weight, and what its integers stand for. With minimums, those of 4 bits have no
// sign.
template <int Bits, Offsets Kind>
struct Panel {
  static constexpr bool kUnsigned = Kind == Offsets::Minimums;

  Panel(const RightFactor& right, int64_t k, int64_t index)
      : groups((k + right.integers.group - 1) / right.integers.group),
        integers(static_cast<const int8_t*>(right.data) +
                 index * (Bits == 8 ? k : (k + 1) / 2) * kPanelWidth),
        params(right.integers),
        first(index * groups * kPanelWidth) {}

  static Vec low_halves(IntVec bytes) { return integers_at_low_end<kUnsigned>(bytes); }
  static Vec high_halves(IntVec bytes) { return integers_at_low_end<kUnsigned>(bytes >> 4); }

  // The elements at k, and of 4 bits, those at k + 1 with them.
  const int8_t* row(int64_t k) const { return integers + (Bits == 8 ? k : k / 2) * kPanelWidth; }

  Vec at(int64_t k, int v) const {
    const IntVec bytes = simd::load_integers(row(k) + v * simd::kLanes);
    if constexpr (Bits == 8) return to_float(bytes);
    return k % 2 == 0 ? low_halves(bytes) : high_halves(bytes);
  }
  Vec scale(int64_t group, int v) const { return simd::load(params.scales, place(group, v)); }
  Vec zero(int64_t group, int v) const {
    if constexpr (Kind != Offsets::ZeroPoints) return Vec{};
    return to_float(simd::load_integers(params.zeros + place(group, v)));
  }
  Vec minimum(int64_t group, int v) const {
    if constexpr (Kind != Offsets::Minimums) return Vec{};
    return simd::load(params.minimums, place(group, v));
  }
  // Where a group's numbers are, of the panel or of one that follows it.
  int64_t place(int64_t group, int v) const {
    return first + group * kPanelWidth + v * simd::kLanes;
  }

  int64_t groups;
  const int8_t* integers;
  const IntegersParams& params;
  int64_t first;
};

template <int Bits, Offsets Kind>
void expand(const RightFactor& right, int64_t k_all, int64_t index, int64_t k0, int64_t depth,
            float* floats) {
  const Panel<Bits, Kind> panel(right, k_all, index);
  const int64_t size = right.integers.group;
  for (int64_t k = k0; k < k0 + depth;) {
    const int64_t group = k / size;
    const int64_t end = std::min((group + 1) * size, k0 + depth);
    Vec scales[kVecs];
    Vec zeros[kVecs];
    Vec minimums[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      scales[v] = panel.scale(group, v);
      zeros[v] = panel.zero(group, v);
      minimums[v] = panel.minimum(group, v);
    }
    for (; k < end; ++k) {
      for (int v = 0; v < kVecs; ++v) {
        Vec element = panel.at(k, v);
        if constexpr (Kind == Offsets::ZeroPoints) element -= zeros[v];
        element *= scales[v];
        if constexpr (Kind == Offsets::Minimums) element += minimums[v];
        simd::store(floats + (k - k0) * kPanelWidth + v * simd::kLanes, element);
      }
    }
  }
}

// An addition waits for the one before it, so that few sums at a time leave the processor idle.
// With 32 registers there is room for twice as many, of even and of odd elements.
constexpr int kParities = simd::kLanes == 16 ? 2 : 1;
// Panels at a time, of at most so many rows.
constexpr int kManyPanels = simd::kLanes == 16 ? 4 : 2;
constexpr int64_t kRowsOfMany = 2;

// Sums of Rows rows and Panels panels over one group, before they are scaled. Alone: and of the
// rows alone, the same number in every lane.
template <int Rows, int Panels, bool Alone>
struct GroupSums {
  static constexpr int kCount = Panels * kVecs;
  Vec sums[kParities][Rows][kCount] = {};
  [[maybe_unused]] Vec rows[kParities][Rows] = {};

  void add(const float* left, int64_t stride, int parity, int vec, Vec integers) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const Vec x = simd::splat(left[r * stride]);
      sums[parity % kParities][r][vec] += x * integers;
      if constexpr (Alone) {
        if (vec == 0) rows[parity % kParities][r] += x;
      }
    }
  }
  Vec row(int r) const { return kParities == 1 ? rows[0][r] : rows[0][r] + rows[kParities - 1][r]; }
  Vec total(int row, int vec) const {
    return kParities == 1 ? sums[0][row][vec] : sums[0][row][vec] + sums[kParities - 1][row][vec];
  }
};

template <int Bits, Offsets Kind, int Rows, int Panels>
void multiply(const Gemm& op, int64_t first) {
  constexpr int kCount = Panels * kVecs;
  constexpr bool kMinimums = Kind == Offsets::Minimums;
  const Panel<Bits, Kind> panel(op.right, op.k, first);
  const int64_t bytes = (Bits == 8 ? op.k : (op.k + 1) / 2) * kPanelWidth;  // of a panel
  const int64_t size = op.right.integers.group;
  Vec totals[Rows][kCount] = {};
  for (int64_t group = 0; group < panel.groups; ++group) {
    GroupSums<Rows, Panels, kMinimums> of_group;
    Vec zeros[kCount];
    for (int v = 0; v < kCount; ++v) {
      // Panels follow each other, and so do their groups.
      zeros[v] = panel.zero(group + v / kVecs * panel.groups, v % kVecs);
    }
    const int64_t end = std::min((group + 1) * size, op.k);
    int64_t k = group * size;
    const auto add = [&](int64_t at, int parity, int v, Vec q) {
      if constexpr (Kind == Offsets::ZeroPoints) q -= zeros[v];
      of_group.add(op.left.data + at, op.left.stride, parity, v, q);
    };
    const auto one = [&] {
      for (int v = 0; v < kCount; ++v) {
        const int8_t* row = panel.row(k) + v / kVecs * bytes + v % kVecs * simd::kLanes;
        const IntVec q = simd::load_integers(row);
        if constexpr (Bits == 8) {
          add(k, 0, v, to_float(q));
        } else {
          add(k, 0, v, k % 2 == 0 ? panel.low_halves(q) : panel.high_halves(q));
        }
      }
      ++k;
    };
    if (Bits == 4 && k % 2 != 0) one();
    for (; k + 1 < end; k += 2) {
#pragma GCC unroll 8
      for (int v = 0; v < kCount; ++v) {
        const int8_t* row = panel.row(k) + v / kVecs * bytes + v % kVecs * simd::kLanes;
        if constexpr (Bits == 8) {
          add(k, 0, v, to_float(simd::load_integers(row)));
          add(k + 1, 1, v, to_float(simd::load_integers(row + kPanelWidth)));
        } else {
          const IntVec both = simd::load_integers(row);
          add(k, 0, v, panel.low_halves(both));
          add(k + 1, 1, v, panel.high_halves(both));
        }
      }
    }
    if (k < end) one();
    for (int v = 0; v < kCount; ++v) {
      const Vec scale = panel.scale(group + v / kVecs * panel.groups, v % kVecs);
      for (int r = 0; r < Rows; ++r) totals[r][v] += of_group.total(r, v) * scale;
      if constexpr (kMinimums) {
        const Vec minimum = panel.minimum(group + v / kVecs * panel.groups, v % kVecs);
        for (int r = 0; r < Rows; ++r) totals[r][v] += of_group.row(r) * minimum;
      }
    }
  }
  const Vec min = simd::splat(op.clamp.min);
  const Vec max = simd::splat(op.clamp.max);
  for (int v = 0; v < kCount; ++v) {
    const int64_t column = first * kPanelWidth + v * simd::kLanes;
    const int64_t count = std::clamp<int64_t>(op.n - column, 0, simd::kLanes);
    if (count == 0) break;
    Vec bias{};
    if (op.bias != nullptr) bias = simd::load_part(op.bias + column, count);
    for (int r = 0; r < Rows; ++r) {
      float* to = op.result + r * op.result_stride + column;
      simd::store_part(to, simd::clamp(totals[r][v] + bias, min, max), count);
      simd::round_to(op.clamp.precision, to, count);
    }
  }
}

using Kernel = void (*)(const Gemm& op, int64_t first);

template <auto Value>
using Constant = std::integral_constant<decltype(Value), Value>;

// Calls a function with the integers' bits and offsets as constants.
template <int Bits, typename Function>
auto with_offsets(Offsets offsets, Function function) {
  switch (offsets) {
    case Offsets::None:
      break;
    case Offsets::ZeroPoints:
      return function(Constant<Bits>{}, Constant<Offsets::ZeroPoints>{});
    case Offsets::Minimums:
      return function(Constant<Bits>{}, Constant<Offsets::Minimums>{});
  }
  return function(Constant<Bits>{}, Constant<Offsets::None>{});
}
template <typename Function>
auto with_kind(const IntegersParams& integers, Function function) {
  return integers.bits == 8 ? with_offsets<8>(integers.offsets, function)
                            : with_offsets<4>(integers.offsets, function);
}

template <int Bits, Offsets Kind, int Panels>
Kernel kernel_for(int64_t rows) {
  switch (rows) {
    case 1:
      return multiply<Bits, Kind, 1, Panels>;
    case 2:
      return multiply<Bits, Kind, 2, Panels>;
    case 3:
      return multiply<Bits, Kind, 3, Panels>;
    default:
      return multiply<Bits, Kind, kFewRows, Panels>;
  }
}

template <int Panels>
Kernel kernel_for(const Gemm& op) {
  return with_kind(op.right.integers, [&](auto bits, auto kind) -> Kernel {
    return kernel_for<bits(), kind(), Panels>(op.m);
  });
}

}  // namespace

void expand_integers(const RightFactor& right, int64_t k, int64_t panel, int64_t k0, int64_t depth,
                     float* floats) {
  with_kind(right.integers, [&](auto bits, auto kind) {
    expand<bits(), kind()>(right, k, panel, k0, depth, floats);
  });
}

void few_rows_times_integers(const Gemm& op, int ith, int nth) {
  const int64_t panel_count = (op.n + kPanelWidth - 1) / kPanelWidth;
  const Range panels = part_of(panel_count, ith, nth);
  const Kernel many = kernel_for<kManyPanels>(op);
  const Kernel two = kernel_for<2>(op);
  const Kernel one = kernel_for<1>(op);
  int64_t first = panels.first;
  if (op.m <= kRowsOfMany) {
    for (; first + kManyPanels <= panels.last; first += kManyPanels) many(op, first);
  }
  for (; first + 1 < panels.last; first += 2) two(op, first);
  if (first < panels.last) one(op, first);
}

}  // namespace ggml_delegate
