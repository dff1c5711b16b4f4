// Ops with numbers per channel of a [samples, channels, inner] or [samples, inner, channels]
// tensor.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// src[0] and the result are dense, float32, and may be the same memory.
struct ChannelParams {
  int64_t samples = 1;
  int64_t channels = 1;
  int64_t inner = 1;
  bool channels_last = false;
};

// y = x * scale + shift; src[1] and src[2] hold one number per channel. `userdata` is a
// ChannelParams.
void channel_affine_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

struct GroupNormParams {
  ChannelParams shape;
  int64_t groups = 1;  // divides the channels
  float eps = 0;
  bool weight = false;
  bool bias = false;
};

// Each group of channels of a sample to mean 0 and variance 1, then scaled and shifted per channel.
// After src[0] come the weight and the bias, those that are there; `userdata` is a GroupNormParams.
void group_norm_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
