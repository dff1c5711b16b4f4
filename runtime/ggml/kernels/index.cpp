#include "index.h"

#include <cstring>

#include "work.h"

namespace ggml_delegate {
namespace {

constexpr size_t kElement = sizeof(uint32_t);

// The row that index tuple number `i` names, or -1.
int64_t row_of(const ggml_tensor* result, int first_index, const IndexParams& params, int64_t i) {
  int64_t row = 0;
  for (size_t k = 0; k < params.sizes.size(); ++k) {
    int64_t index =
        static_cast<const int32_t*>(result->src[static_cast<size_t>(first_index) + k]->data)[i];
    if (index < 0) index += params.sizes[k];
    if (index < 0 || index >= params.sizes[k]) {
      params.fault->store(Fault::IndexOutOfRange, std::memory_order_relaxed);
      return -1;
    }
    row = row * params.sizes[k] + index;
  }
  return row;
}

// Writes elements of four bytes as they are, or floats in a half type.
void put_row(const float* values, int64_t count, ggml_type type, std::byte* to) {
  if (type == GGML_TYPE_F16) {
    ggml_fp32_to_fp16_row(values, reinterpret_cast<ggml_fp16_t*>(to), count);
  } else if (type == GGML_TYPE_BF16) {
    ggml_fp32_to_bf16_row(values, reinterpret_cast<ggml_bf16_t*>(to), count);
  } else {
    std::memcpy(to, values, static_cast<size_t>(count) * kElement);
  }
}

}  // namespace

void index_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const IndexParams*>(userdata);
  const auto* x = static_cast<const uint32_t*>(result->src[0]->data);
  auto* y = static_cast<uint32_t*>(result->data);
  const auto bytes = static_cast<size_t>(params.inner) * kElement;
  const int64_t rows = element_count(params.sizes);
  const Range range = part_of(params.outer * params.count, ith, nth);
  for (int64_t i = range.first; i < range.last; ++i) {
    const int64_t row = row_of(result, 1, params, i % params.count);
    uint32_t* to = y + i * params.inner;
    if (row < 0) {
      std::memset(to, 0, bytes);
    } else {
      std::memcpy(to, x + (i / params.count * rows + row) * params.inner, bytes);
    }
  }
}

void index_put_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const IndexParams*>(userdata);
  const auto* values = static_cast<const float*>(result->src[1]->data);
  auto* y = static_cast<std::byte*>(result->data);
  const int64_t row_bytes = params.inner * static_cast<int64_t>(ggml_type_size(result->type));
  const int64_t rows = element_count(params.sizes);
  // Every thread finds the same, so that all write or none does.
  if (params.fault->load(std::memory_order_relaxed) != Fault::None) return;
  for (int64_t i = 0; i < params.count; ++i) {
    if (row_of(result, 2, params, i) < 0) return;
  }
  Overwritten* overwritten = params.overwritten.get();
  if (overwritten != nullptr && ith == 0) {
    for (int64_t i = 0; i < params.count; ++i) {
      overwritten->places_[static_cast<size_t>(i)] = row_of(result, 2, params, i);
    }
    overwritten->data_ = y;
  }
  // Threads share no row: each has matrices of its own.
  const Range range = part_of(params.outer, ith, nth);
  for (int64_t outer = range.first; outer < range.last; ++outer) {
    const auto row = [&](int64_t i) {
      return y + (outer * rows + row_of(result, 2, params, i)) * row_bytes;
    };
    const int64_t first = outer * params.count;
    for (int64_t i = 0; overwritten != nullptr && i < params.count; ++i) {
      std::memcpy(overwritten->before_.data() + (first + i) * row_bytes, row(i),
                  static_cast<size_t>(row_bytes));
    }
    for (int64_t i = 0; i < params.count; ++i) {
      put_row(values + (first + i) * params.inner, params.inner, result->type, row(i));
    }
  }
}

Overwritten::Overwritten(int64_t outer, int64_t rows, int64_t count, int64_t row_bytes)
    : outer_(outer),
      rows_(rows),
      row_bytes_(row_bytes),
      places_(static_cast<size_t>(count)),
      before_(static_cast<size_t>(outer * count * row_bytes)) {}

void Overwritten::take_back() {
  if (data_ == nullptr) return;
  const std::byte* from = before_.data();
  for (int64_t outer = 0; outer < outer_; ++outer) {
    for (const int64_t row : places_) {
      std::memcpy(data_ + (outer * rows_ + row) * row_bytes_, from,
                  static_cast<size_t>(row_bytes_));
      from += row_bytes_;
    }
  }
}

void gather_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const GatherParams*>(userdata);
  const auto* x = static_cast<const uint32_t*>(result->src[0]->data);
  const auto* indices = static_cast<const int32_t*>(result->src[1]->data);
  auto* y = static_cast<uint32_t*>(result->data);
  const Range range = part_of(element_count(params.sizes), ith, nth);
  for (int64_t i = range.first; i < range.last; ++i) {
    int64_t index = indices[i];
    if (index < 0 || index >= params.size) {
      params.fault->store(Fault::IndexOutOfRange, std::memory_order_relaxed);
      index = 0;
    }
    int64_t from = index * params.strides[params.dim];
    int64_t rest = i;
    for (size_t dim = params.sizes.size(); dim-- > 0;) {
      if (dim != params.dim) from += rest % params.sizes[dim] * params.strides[dim];
      rest /= params.sizes[dim];
    }
    y[i] = x[from];
  }
}

}  // namespace ggml_delegate
