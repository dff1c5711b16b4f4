#include "grid.h"

#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::IntVec;
using simd::kLanes;
using simd::splat;
using simd::Vec;

constexpr int64_t kGrain = 64;  // elements; no two threads write to one cache line

struct Grid {
  explicit Grid(const GridParams& params)
      : scale(splat(params.scale)),
        factor(splat(params.factor)),
        zero_point(splat(params.zero_point)),
        low(splat(params.low)),
        high(splat(params.high)) {}

  // Integers, as floats.
  Vec quantize(Vec x) const {
    const Vec q = simd::round(x * factor) + zero_point;
    return simd::clamp(simd::select(q == q, q, Vec{}), low, high);
  }
  Vec dequantize(Vec q) const { return (q - zero_point) * scale; }

  Vec scale, factor, zero_point, low, high;
};

// The bits of integers as floats and back: memory is read and written as floats.
inline Vec as_floats(IntVec v) { return reinterpret_cast<Vec>(v); }
inline IntVec as_integers(Vec v) { return reinterpret_cast<IntVec>(v); }

template <typename Function>
void each(ggml_tensor* result, int ith, int nth, Function f) {
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* y = static_cast<float*>(result->data);
  const Range range = part_of(ggml_nelements(result), ith, nth, kGrain);
  int64_t i = range.first;
  for (; i + kLanes <= range.last; i += kLanes) simd::store(y + i, f(simd::load(x + i)));
  if (i < range.last) {
    const int64_t rest = range.last - i;
    simd::store_part(y + i, f(simd::load_part(x + i, rest)), rest);
  }
}

}  // namespace

void quantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const Grid grid(*static_cast<const GridParams*>(userdata));
  each(result, ith, nth,
       [&](Vec x) { return as_floats(__builtin_convertvector(grid.quantize(x), IntVec)); });
}

void dequantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const Grid grid(*static_cast<const GridParams*>(userdata));
  each(result, ith, nth,
       [&](Vec q) { return grid.dequantize(__builtin_convertvector(as_integers(q), Vec)); });
}

void round_to_grid_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const Grid grid(*static_cast<const GridParams*>(userdata));
  each(result, ith, nth, [&](Vec x) { return grid.dequantize(grid.quantize(x)); });
}

}  // namespace ggml_delegate
