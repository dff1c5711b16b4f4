#include "transpose.h"

#include <algorithm>
#include <cstring>

namespace ggml_delegate {
namespace {

constexpr int64_t kTile = 16;  // 16 x 16 elements of 4 bytes: a cache line either way

// dst[c][r] = src[r][c], in tiles that stay in the first-level cache.
void transpose_matrix(const uint32_t* src, uint32_t* dst, int64_t rows, int64_t columns) {
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(r0 + kTile, rows);
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int64_t c1 = std::min(c0 + kTile, columns);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) dst[c * rows + r] = src[r * columns + c];
      }
    }
  }
}

// Rows [first, last) of the result, each `inner` elements long, taken from strided places.
struct StridedCopy {
  Sizes sizes;    // of the result
  Sizes strides;  // in the source, per result dimension, in elements

  void rows(const uint32_t* src, uint32_t* dst, int64_t first, int64_t last) const {
    const size_t rank = sizes.size();
    const int64_t inner = sizes[rank - 1];
    const int64_t step = strides[rank - 1];
    for (int64_t row = first; row < last; ++row) {
      int64_t rest = row;
      const uint32_t* from = src;
      for (size_t i = rank - 1; i-- > 0;) {
        from += (rest % sizes[i]) * strides[i];
        rest /= sizes[i];
      }
      uint32_t* to = dst + row * inner;
      if (step == 1) {
        std::memcpy(to, from, static_cast<size_t>(inner) * sizeof(uint32_t));
      } else {
        for (int64_t i = 0; i < inner; ++i) to[i] = from[i * step];
      }
    }
  }
};

}  // namespace

void transpose_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const TransposeParams*>(userdata);
  const auto* src = static_cast<const uint32_t*>(result->src[0]->data);
  auto* dst = static_cast<uint32_t*>(result->data);
  const size_t rank = params.sizes.size();

  // The last two dimensions swapped, the others in place: a batch of matrices.
  const bool matrices = rank >= 2 && params.axes[rank - 1] == rank - 2 &&
                        params.axes[rank - 2] == rank - 1 &&
                        std::is_sorted(params.axes.begin(), params.axes.end() - 2);
  if (matrices) {
    const int64_t rows = params.sizes[rank - 2];
    const int64_t columns = params.sizes[rank - 1];
    const int64_t batch = element_count(params.sizes) / std::max<int64_t>(rows * columns, 1);
    if (batch >= nth) {
      for (int64_t b = batch * ith / nth; b < batch * (ith + 1) / nth; ++b) {
        transpose_matrix(src + b * rows * columns, dst + b * rows * columns, rows, columns);
      }
      return;
    }
  }
  StridedCopy copy;
  Sizes source_strides;
  for (size_t i = 0; i < rank; ++i) source_strides.push_back(1);
  for (size_t i = rank; i-- > 1;) source_strides[i - 1] = source_strides[i] * params.sizes[i];
  for (const uint8_t axis : params.axes) {
    copy.sizes.push_back(params.sizes[axis]);
    copy.strides.push_back(source_strides[axis]);
  }
  if (rank == 0) {
    if (ith == 0) dst[0] = src[0];
    return;
  }
  const int64_t rows = element_count(copy.sizes) / std::max<int64_t>(copy.sizes[rank - 1], 1);
  copy.rows(src, dst, rows * ith / nth, rows * (ith + 1) / nth);
}

}  // namespace ggml_delegate
