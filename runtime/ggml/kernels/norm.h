// Normalisation over the innermost elements.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// The tensor seen as rows of `count` elements. src[0] and the result are dense, float32, and may be
// the same memory; then come the weight and the bias, `count` elements each, those that are there.
struct RowNormParams {
  int64_t count = 1;
  float eps = 0;
  bool weight = false;
  bool bias = false;
};

// Ggml custom ops; `userdata` is a RowNormParams.
// y = (x - mean) / sqrt(variance + eps) * weight + bias
void layer_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
// y = x / sqrt(mean(x^2) + eps) * weight
void rms_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
