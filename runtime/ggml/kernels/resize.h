// Images in another size.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace ggml_delegate {

// One side of the images. `step` is how far neighbours in the result are apart in the source.
struct ResizeAxis {
  int64_t in = 1;
  int64_t out = 1;
  float step = 1;
};

// src[0] and the result are dense channels-last float32 images.
struct ResizeParams {
  int64_t batch = 1;
  int64_t channels = 1;
  ResizeAxis y;
  ResizeAxis x;
  bool align_corners = false;  // of bilinear
};

// Custom ops; `userdata` is a ResizeParams. Places are worked out as in torch.
void resize_nearest_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
void resize_bilinear_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
