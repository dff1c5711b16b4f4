#include "panels.h"

#include <ggml-cpu.h>

#include <algorithm>

#include "integers.h"

namespace ggml_delegate {
namespace {

// Rows k0 .. k0 + depth of one panel of a right factor whose rows are columns.
void transpose_panel(const float* from, int64_t stride, int64_t columns, int64_t depth,
                     float* panel) {
  for (int64_t column = 0; column < kPanelWidth; ++column) {
    const float* source = from + column * stride;
    for (int64_t k = 0; k < depth; ++k) {
      panel[k * kPanelWidth + column] = column < columns ? source[k] : 0.0F;
    }
  }
}

// Rows k0 .. k0 + depth of a packed panel that does not hold float32.
void expand_panel(const Gemm& op, int64_t number, int64_t k0, int64_t depth, float* panel) {
  const RightFactor& right = op.right;
  const int64_t offset = (number * op.k + k0) * kPanelWidth;
  const int64_t count = depth * kPanelWidth;
  if (right.integers.bits != 0) {
    expand_integers(right, op.k, number, k0, depth, panel);
  } else if (right.type == GGML_TYPE_F16) {
    ggml_cpu_fp16_to_fp32(static_cast<const ggml_fp16_t*>(right.data) + offset, panel, count);
  } else {
    ggml_cpu_bf16_to_fp32(static_cast<const ggml_bf16_t*>(right.data) + offset, panel, count);
  }
}

void copy_panel(const float* from, int64_t stride, int64_t columns, int64_t depth, float* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t column = 0; column < kPanelWidth; ++column) {
      panel[k * kPanelWidth + column] = column < columns ? from[k * stride + column] : 0.0F;
    }
  }
}

}  // namespace

bool reads_halves(const RightFactor& right, int64_t rows) {
  return right.columns == Columns::Packed && rows <= kFewHalfRows &&
         (right.type == GGML_TYPE_F16 || right.type == GGML_TYPE_BF16);
}

Panels prepare_right(const Gemm& op, int64_t rows, int64_t first, int64_t count, int64_t k0,
                     int64_t depth, float* space) {
  const RightFactor& right = op.right;
  const auto* data = static_cast<const float*>(right.data);
  const bool whole = (first + count) * kPanelWidth <= op.n;
  if (right.columns == Columns::Packed && right.type == GGML_TYPE_F32) {
    return {data + (first * op.k + k0) * kPanelWidth, kPanelWidth, op.k * kPanelWidth};
  }
  if (reads_halves(right, rows)) {
    const auto* halves = static_cast<const uint16_t*>(right.data);
    return {halves + (first * op.k + k0) * kPanelWidth, kPanelWidth, op.k * kPanelWidth};
  }
  if (right.columns == Columns::RowMajor && whole) {
    return {data + k0 * right.stride + first * kPanelWidth, right.stride, kPanelWidth};
  }
  for (int64_t i = 0; i < count; ++i) {
    float* panel = space + i * depth * kPanelWidth;
    const int64_t column = (first + i) * kPanelWidth;
    const int64_t columns = std::min(op.n - column, kPanelWidth);
    if (right.columns == Columns::Packed) {
      expand_panel(op, first + i, k0, depth, panel);
    } else if (right.columns == Columns::RowMajor) {
      copy_panel(data + k0 * right.stride + column, right.stride, columns, depth, panel);
    } else {
      transpose_panel(data + column * right.stride + k0, right.stride, columns, depth, panel);
    }
  }
  return {space, kPanelWidth, depth * kPanelWidth};
}

}  // namespace ggml_delegate
