// Softmax along any dimension.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// The tensor seen as [outer, count, inner], with the softmax over the middle.
struct SoftmaxParams {
  int64_t outer = 1;
  int64_t count = 1;
  int64_t inner = 1;
  bool log = false;
};

// A ggml custom op: src[0] and the result are dense, float32, and may be the same memory;
// `userdata` is a SoftmaxParams. A row with a NaN, or of nothing but -inf, becomes NaN, as in
// torch.
void softmax_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
