// A tensor of the program inside a ggml graph.
#pragma once

#include <ggml.h>

#include "kernels/precision.h"
#include "shape.h"

namespace ggml_delegate {

// Whether a tensor has elements of a half type: weights, or state that stays as it lies in memory.
inline bool is_half(const ggml_tensor* tensor) {
  return tensor->type == GGML_TYPE_F16 || tensor->type == GGML_TYPE_BF16;
}

// `tensor` holds the elements in physical sequence: for rank <= 4 its ne are physical_sizes(sizes,
// order) reversed and padded with 1; above rank 4 it is one dense row. Up to rank 4 it may be a
// strided view (of a slice); GraphBuilder::dense() makes it whole. So a permutation, and a change
// between contiguous and channels-last, is a change of `order` alone until some op needs more.
struct Value {
  ggml_tensor* tensor = nullptr;
  Sizes sizes;
  Order order;
  Precision precision = Precision::Float32;  // to which the kernel rounded that made it

  size_t rank() const { return sizes.size(); }
  int64_t count() const { return element_count(sizes); }
  bool contiguous() const { return same_layout(sizes, order, identity_order(rank())); }
};

}  // namespace ggml_delegate
