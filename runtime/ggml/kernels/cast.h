// Conversions between the two types of element inside a graph.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

struct CastParams {
  bool to_bool = false;  // to 1 where the element is not 0
};

// A ggml custom op: src[0] is dense, F32 or I32, the result dense and F32 or I32; or src[0] is F16
// or BF16, and the result F32. `userdata` is a CastParams. Floats go to integers towards zero,
// those beyond int32 to its ends, NaN to 0.
void cast_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
