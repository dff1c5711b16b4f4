// Sums along one dimension.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// The source seen as [outer, count, inner]; the result is [outer, inner].
struct ReduceParams {
  int64_t outer = 1;
  int64_t count = 1;
  int64_t inner = 1;
  bool mean = false;
};

// A ggml custom op: src[0] and the result are dense, float32; `userdata` is a ReduceParams.
void reduce_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
