// Pooling of channels-last images.
#pragma once

#include <ggml.h>

#include "window.h"

namespace ggml_delegate {

struct PoolParams {
  Windows windows;
  // Avg: the divisor when above 0, else the window's size, without the padding when
  // `count_include_pad` is false.
  int64_t divisor = 0;
  bool count_include_pad = true;
  // Elements behind the input that count as padding, per dimension.
  int64_t pad_after_y = 0;
  int64_t pad_after_x = 0;
  // Windows are [floor(i in / out), ceil((i + 1) in / out)).
  bool adaptive = false;
};

// ggml custom ops: src[0] is the input [n, h, w, c], dense float32; the result is [n, oh, ow, c].
// `userdata` is a PoolParams. A NaN in a window is its maximum.
void max_pool_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
void avg_pool_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
