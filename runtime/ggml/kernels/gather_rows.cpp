#include "gather_rows.h"

#include <cstring>

#include "gemm.h"

namespace ggml_delegate {
namespace {

void copy_row(const ggml_tensor* matrix, int64_t row, int64_t width, void* to) {
  const size_t element = ggml_type_size(matrix->type);
  const char* from = static_cast<const char*>(matrix->data) +
                     static_cast<size_t>(row) * static_cast<size_t>(width) * element;
  if (matrix->type == GGML_TYPE_F16) {
    ggml_fp16_to_fp32_row(reinterpret_cast<const ggml_fp16_t*>(from), static_cast<float*>(to),
                          width);
  } else if (matrix->type == GGML_TYPE_BF16) {
    ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t*>(from), static_cast<float*>(to),
                          width);
  } else {
    std::memcpy(to, from, static_cast<size_t>(width) * element);
  }
}

template <typename From, typename Function>
void copy_panel_row(const ggml_tensor* matrix, int64_t row, int64_t width, float* to,
                    Function convert) {
  const auto* from = static_cast<const From*>(matrix->data) +
                     row / kPanelWidth * width * kPanelWidth + row % kPanelWidth;
  for (int64_t i = 0; i < width; ++i) to[i] = convert(from[i * kPanelWidth]);
}

// The same of a matrix in panels, whose elements are kPanelWidth apart in a row.
void copy_panel_row(const ggml_tensor* matrix, int64_t row, int64_t width, void* to) {
  auto* floats = static_cast<float*>(to);
  if (matrix->type == GGML_TYPE_F16) {
    copy_panel_row<ggml_fp16_t>(matrix, row, width, floats, ggml_fp16_to_fp32);
  } else if (matrix->type == GGML_TYPE_BF16) {
    copy_panel_row<ggml_bf16_t>(matrix, row, width, floats, ggml_bf16_to_fp32);
  } else {
    copy_panel_row<float>(matrix, row, width, floats, [](float value) { return value; });
  }
}

}  // namespace

void gather_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const GatherRowsParams*>(userdata);
  const ggml_tensor* matrix = result->src[0];
  const auto* indices = static_cast<const int32_t*>(result->src[1]->data);
  const int64_t count = ggml_nelements(result->src[1]);
  const size_t row_bytes = static_cast<size_t>(params.width) * sizeof(uint32_t);
  char* to = static_cast<char*>(result->data);
  const int64_t total = count * params.matrices;
  for (int64_t i = total * ith / nth; i < total * (ith + 1) / nth; ++i) {
    int64_t row = indices[i % count];
    if (row < 0 && params.wrap) row += params.rows;
    char* out = to + static_cast<size_t>(i) * row_bytes;
    if (row >= 0 && row < params.rows && params.panels) {
      copy_panel_row(matrix, row, params.width, out);
    } else if (row >= 0 && row < params.rows) {
      copy_row(matrix, i / count * params.rows + row, params.width, out);
    } else {
      params.fault->store(Fault::IndexOutOfRange, std::memory_order_relaxed);
      std::memset(out, 0, row_bytes);
    }
  }
}

}  // namespace ggml_delegate
