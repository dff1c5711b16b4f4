// Elements and rows by several indices at once.
#pragma once

#include <ggml.h>

#include <atomic>
#include <cstdint>

#include "../fault.h"
#include "../shape.h"

namespace ggml_delegate {

// A tensor seen as [outer, sizes..., inner], and one dense I32 tensor of `count` indices for each
// of `sizes`. Indices below 0 count from the end; one outside sets `fault`, and its row is 0, or
// left as it is.
struct IndexParams {
  int64_t outer = 1;
  Sizes sizes;
  int64_t inner = 1;
  int64_t count = 1;
  std::atomic<Fault>* fault = nullptr;
};

// Custom ops on dense tensors of 4-byte elements; `userdata` is an IndexParams.

// src[0] is the tensor, src[1..] the indices; the result is [outer, count, inner].
void index_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
// Writes into the tensor, which is src[0] and the result: src[1] holds the values [outer, count,
// inner], src[2..] the indices. The last value for a place stays.
void index_put_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

// result[i0, .., ik] = src[0][i0, .., src[1][i0, .., ik], .., ik]
struct GatherParams {
  Sizes sizes;    // of the dense indices and the dense result
  Sizes strides;  // of the source, in elements
  size_t dim = 0;
  int64_t size = 0;  // of the source in `dim`
  std::atomic<Fault>* fault = nullptr;
};
void gather_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
