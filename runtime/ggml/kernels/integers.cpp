#include "integers.h"

#include <algorithm>
#include <cstring>

#include "half.h"
#include "simd.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::IntVec;
using simd::Vec;

constexpr int kVecs = static_cast<int>(kPanelWidth) / simd::kLanes;  // per panel

// int8 to int32; GCC 12 would take the elements one by one.
inline IntVec widen(const int8_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<IntVec>(_mm512_maskz_cvtepi8_epi32(
      simd::kAllLanes, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
  return reinterpret_cast<IntVec>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
  using Bytes = int8_t __attribute__((vector_size(simd::kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return __builtin_convertvector(bytes, IntVec);
#endif
}

inline Vec to_float(IntVec integers) { return __builtin_convertvector(integers, Vec); }

// The integers of 4 bits at the lower end of each lane, as floats.
inline Vec low_halves(IntVec lanes) {
#if defined(__AVX512F__)
  // A table's index is as many bits, and all others are ignored.
  const __m512 values = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
  return reinterpret_cast<Vec>(
      _mm512_maskz_permutexvar_ps(simd::kAllLanes, reinterpret_cast<__m512i>(lanes), values));
#else
  return to_float(lanes << 28 >> 28);
#endif
}
inline Vec high_halves(IntVec bytes) { return low_halves(bytes >> 4); }

// A panel of a weight, and what its integers stand for.
template <int Bits>
struct Panel {
  Panel(const RightFactor& right, int64_t k, int64_t index)
      : groups((k + right.integers.group - 1) / right.integers.group),
        integers(static_cast<const int8_t*>(right.data) +
                 index * (Bits == 8 ? k : (k + 1) / 2) * kPanelWidth),
        scales(right.integers.scales + index * groups * kPanelWidth),
        zeros(right.integers.zeros == nullptr
                  ? nullptr
                  : right.integers.zeros + index * groups * kPanelWidth) {}

  // The elements at k, and of 4 bits, those at k + 1 with them.
  const int8_t* row(int64_t k) const { return integers + (Bits == 8 ? k : k / 2) * kPanelWidth; }

  Vec at(int64_t k, int v) const {
    const IntVec bytes = widen(row(k) + v * simd::kLanes);
    if constexpr (Bits == 8) return to_float(bytes);
    return k % 2 == 0 ? low_halves(bytes) : high_halves(bytes);
  }
  Vec scale(int64_t group, int v) const {
    return simd::load(scales + group * kPanelWidth + v * simd::kLanes);
  }
  Vec zero(int64_t group, int v) const {
    if (zeros == nullptr) return Vec{};
    return to_float(widen(zeros + group * kPanelWidth + v * simd::kLanes));
  }

  int64_t groups;
  const int8_t* integers;
  const float* scales;
  const int8_t* zeros;
};

template <int Bits>
void expand(const RightFactor& right, int64_t k_all, int64_t index, int64_t k0, int64_t depth,
            float* floats) {
  const Panel<Bits> panel(right, k_all, index);
  const int64_t size = right.integers.group;
  for (int64_t k = k0; k < k0 + depth;) {
    const int64_t group = k / size;
    const int64_t end = std::min((group + 1) * size, k0 + depth);
    Vec scales[kVecs];
    Vec zeros[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      scales[v] = panel.scale(group, v);
      zeros[v] = panel.zero(group, v);
    }
    for (; k < end; ++k) {
      for (int v = 0; v < kVecs; ++v) {
        simd::store(floats + (k - k0) * kPanelWidth + v * simd::kLanes,
                    (panel.at(k, v) - zeros[v]) * scales[v]);
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

// Sums of Rows rows and Panels panels over one group, before they are scaled.
template <int Rows, int Panels>
struct GroupSums {
  static constexpr int kCount = Panels * kVecs;
  Vec sums[kParities][Rows][kCount] = {};

  void add(const float* left, int64_t stride, int parity, int vec, Vec integers) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      sums[parity % kParities][r][vec] += simd::splat(left[r * stride]) * integers;
    }
  }
  Vec total(int row, int vec) const {
    return kParities == 1 ? sums[0][row][vec] : sums[0][row][vec] + sums[kParities - 1][row][vec];
  }
};

// Zeros: whether the integers have zero points.
template <int Bits, bool Zeros, int Rows, int Panels>
void multiply(const Gemm& op, int64_t first) {
  constexpr int kCount = Panels * kVecs;
  const Panel<Bits> panel(op.right, op.k, first);
  const int64_t bytes = (Bits == 8 ? op.k : (op.k + 1) / 2) * kPanelWidth;  // of a panel
  const int64_t size = op.right.integers.group;
  Vec totals[Rows][kCount] = {};
  for (int64_t group = 0; group < panel.groups; ++group) {
    GroupSums<Rows, Panels> of_group;
    Vec zeros[kCount];
    for (int v = 0; v < kCount; ++v) {
      // Panels follow each other, and so do their groups.
      zeros[v] = panel.zero(group + v / kVecs * panel.groups, v % kVecs);
    }
    const int64_t end = std::min((group + 1) * size, op.k);
    int64_t k = group * size;
    const auto add = [&](int64_t at, int parity, int v, Vec q) {
      if constexpr (Zeros) q -= zeros[v];
      of_group.add(op.left.data + at, op.left.stride, parity, v, q);
    };
    const auto one = [&] {
      for (int v = 0; v < kCount; ++v) {
        const int8_t* row = panel.row(k) + v / kVecs * bytes + v % kVecs * simd::kLanes;
        const IntVec q = widen(row);
        if constexpr (Bits == 8) {
          add(k, 0, v, to_float(q));
        } else {
          add(k, 0, v, k % 2 == 0 ? low_halves(q) : high_halves(q));
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
          add(k, 0, v, to_float(widen(row)));
          add(k + 1, 1, v, to_float(widen(row + kPanelWidth)));
        } else {
          const IntVec both = widen(row);
          add(k, 0, v, low_halves(both));
          add(k + 1, 1, v, high_halves(both));
        }
      }
    }
    if (k < end) one();
    for (int v = 0; v < kCount; ++v) {
      const Vec scale = panel.scale(group + v / kVecs * panel.groups, v % kVecs);
      for (int r = 0; r < Rows; ++r) totals[r][v] += of_group.total(r, v) * scale;
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

template <int Bits, bool Zeros, int Panels>
Kernel kernel_for(int64_t rows) {
  switch (rows) {
    case 1:
      return multiply<Bits, Zeros, 1, Panels>;
    case 2:
      return multiply<Bits, Zeros, 2, Panels>;
    case 3:
      return multiply<Bits, Zeros, 3, Panels>;
    default:
      return multiply<Bits, Zeros, kFewRows, Panels>;
  }
}

template <int Panels>
Kernel kernel_for(const Gemm& op) {
  const bool zeros = op.right.integers.zeros != nullptr;
  if (op.right.integers.bits == 8) {
    return (zeros ? kernel_for<8, true, Panels> : kernel_for<8, false, Panels>)(op.m);
  }
  return (zeros ? kernel_for<4, true, Panels> : kernel_for<4, false, Panels>)(op.m);
}

}  // namespace

void expand_integers(const RightFactor& right, int64_t k, int64_t panel, int64_t k0, int64_t depth,
                     float* floats) {
  (right.integers.bits == 8 ? expand<8> : expand<4>)(right, k, panel, k0, depth, floats);
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
