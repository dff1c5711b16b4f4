// Elements and rows by several indices at once.
#pragma once

#include <ggml.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../fault.h"
#include "../shape.h"

namespace ggml_delegate {

// What a write into rows of a tensor replaced, so that it can be taken back.
class Overwritten {
 public:
  // Of a tensor [outer, rows, row_bytes], `count` rows. Throws std::bad_alloc.
  Overwritten(int64_t outer, int64_t rows, int64_t count, int64_t row_bytes);
  // Before a computation.
  void forget() { data_ = nullptr; }
  // Writes what was there, if anything was written since forget().
  void take_back();

 private:
  friend void index_put_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
  int64_t outer_;
  int64_t rows_;
  int64_t row_bytes_;
  std::vector<int64_t> places_;    // of the rows
  std::vector<std::byte> before_;  // [outer, count, row_bytes]
  std::byte* data_ = nullptr;      // the tensor's
};

// A tensor seen as [outer, sizes..., inner], and one dense I32 tensor of `count` indices for each
// of `sizes`. Indices below 0 count from the end; one outside sets `fault`.
struct IndexParams {
  int64_t outer = 1;
  Sizes sizes;
  int64_t inner = 1;
  int64_t count = 1;
  std::atomic<Fault>* fault = nullptr;
  std::shared_ptr<Overwritten> overwritten;  // of a write that may have to be taken back, or null
};

// Custom ops on dense tensors of 4-byte elements, but for what index_put_kernel writes into;
// `userdata` is an IndexParams.

// src[0] is the tensor, src[1..] the indices; the result is [outer, count, inner]. Rows of indices
// outside are 0.
void index_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
// Writes into the tensor, which is src[0] and the result: src[1] holds the values [outer, count,
// inner], src[2..] the indices. Into a tensor of a half type it writes floats, rounded. The last
// value for a place stays. Nothing is written if an index is outside, or `fault` was set before.
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
