#include "quantized_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "grid_of_rows.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::splat;
using simd::Vec;

// Elements first .. last of a row, from `x`, in sequence but for the pairs: weights that share a
// byte lie as the even ones of eight, then the odd ones.
void round_row(const float* x, RowInteger* row, int64_t first, int64_t last, const RowGrid& grid,
               const QuantizeRowsParams& params) {
  const Vec factor = splat(1.0F / grid.scale);
  const Vec zero_point = splat(grid.zero_point);
  const Vec low = splat(params.grid.low), high = splat(params.grid.high);
  const auto rounded = [&](Vec v) {
    return simd::clamp(simd::round(v * factor) + zero_point, low, high);
  };
#if defined(GGD_INTEGERS_BY_FOUR)
  const Vec offset = splat(static_cast<float>(kRowOffset));
  const __m512i evens_first =
      _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  for (int64_t k = first; k < last; k += kLanes) {
    const int64_t count = std::min<int64_t>(last - k, kLanes);
    Vec v = simd::load_part(x + k, count);
    if (params.pairs) v = _mm512_maskz_permutexvar_ps(simd::kAllLanes, evens_first, v);
    const __m512i q = _mm512_maskz_cvtps_epi32(simd::kAllLanes, rounded(v) + offset);
    _mm512_mask_cvtepi32_storeu_epi8(row + k, simd::mask_of(count), q);
  }
#elif defined(GGD_INTEGERS_BY_TWO) && defined(__AVX512F__)
  for (int64_t k = first; k < last; k += kLanes) {
    const int64_t count = std::min<int64_t>(last - k, kLanes);
    const Vec v = rounded(simd::load_part(x + k, count)) - zero_point;
    const __m512i q = _mm512_maskz_cvtps_epi32(simd::kAllLanes, v);
    _mm512_mask_cvtepi32_storeu_epi16(row + k, simd::mask_of(count), q);
  }
#elif defined(GGD_INTEGERS_BY_TWO)
  for (int64_t k = first; k < last; k += kLanes) {
    const __m256i q = _mm256_cvtps_epi32(rounded(simd::load(x + k)) - zero_point);
    const __m128i narrow =
        _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + k), narrow);
  }
#else
  for (int64_t k = first; k < last; ++k) row[k] = static_cast<RowInteger>(rounded(splat(x[k]))[0]);
#endif
}

RowHeader header_of(const RowGrid& grid) {
  RowHeader header{grid.scale, 0};
  const bool finite = std::isfinite(grid.scale);
  if (!finite) header.scale = std::numeric_limits<float>::quiet_NaN();
#if defined(GGD_INTEGERS_BY_FOUR)
  // Of other scales, the zero point may be NaN, which is no integer.
  header.zero = kRowOffset + (finite ? static_cast<int32_t>(grid.zero_point) : 0);
#endif
  return header;
}

}  // namespace

void quantize_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const QuantizeRowsParams*>(userdata);
  const auto* x = static_cast<const float*>(result->src[0]->data);
  auto* bytes = static_cast<char*>(result->data);
  const int64_t count = params.grid.rows * params.grid.count / params.k;
  const auto row_at = [&](int64_t i) { return bytes + i * quantized_row_bytes(params.k); };
  const auto write = [&](int64_t i, const RowGrid& grid, Range elements) {
    char* row = row_at(i);
    if (elements.first == 0) *reinterpret_cast<RowHeader*>(row) = header_of(grid);
    round_row(x + i * params.k, reinterpret_cast<RowInteger*>(row + sizeof(RowHeader)),
              elements.first, elements.last, grid, params);
  };
  if (params.grid.rows == 1 && count == 1) {  // each thread finds the range for itself
    const Range part = part_of(params.k, ith, nth, simd::kLanes);
    if (part.first < part.last) write(0, grid_of_row(x, params.grid), part);
    return;
  }
  const Range rows = part_of(count, ith, nth);
  const bool by_row = params.grid.rows != 1;
  RowGrid grid{};
  if (!by_row && rows.first < rows.last) grid = grid_of_row(x, params.grid);
  for (int64_t i = rows.first; i < rows.last; ++i) {
    if (by_row) grid = grid_of_row(x + i * params.k, params.grid);
    write(i, grid, {0, params.k});
  }
}

}  // namespace ggml_delegate
