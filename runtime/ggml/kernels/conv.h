// Convolutions of channels-last images as matrix products, and their transposes.
#pragma once

#include <ggml.h>

#include "clamp.h"
#include "gemm.h"
#include "window.h"

namespace ggml_delegate {

struct ConvParams {
  Windows windows;  // channels: of the input
  int64_t out_channels = 0;
  bool has_bias = false;
  IntegersLayout integers;
  ClampParams clamp;
};

// A ggml custom op: src[0] is the input [n, h, w, in], dense float32; src[1] the weight in panels,
// n = out, k = kh * kw * in; then come the bias [out], scales and offsets of integers, where
// there are any; the result is [n, oh, ow, out]. `userdata` is a ConvParams.
void conv_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

// The second half of a transposed convolution: sums columns into pixels.
// A ggml custom op: src[0] is [n, h, w, kh, kw, out]; src[1] the bias [out] when there is one; the
// result is [n, oh, ow, out]. `userdata` is a ConvParams whose windows are those of the convolution
// that this one transposes: `in` are the sizes of the result, `out` those of src[0].
void conv_transpose_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
