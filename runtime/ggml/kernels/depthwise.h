// Depthwise convolution of channels-last images.
#pragma once

#include <ggml.h>

#include "clamp.h"
#include "window.h"

namespace ggml_delegate {

struct DepthwiseParams {
  Windows windows;
  bool has_bias = false;
  ClampParams clamp;
};

// A ggml custom op: src[0] is the input [n, h, w, c], src[1] the weight [kh, kw, c], src[2] the
// bias [c] when there is one, all dense float32; `userdata` is a DepthwiseParams.
void depthwise_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
