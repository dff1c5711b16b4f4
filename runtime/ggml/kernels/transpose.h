// Rearranging the dimensions of a dense tensor of 4-byte elements.
#pragma once

#include <ggml.h>

#include "../shape.h"

namespace ggml_delegate {

struct TransposeParams {
  Sizes sizes;               // of the source, outermost first
  RankVector<uint8_t> axes;  // result dimension -> source dimension
};

// A ggml custom op: src[0] is dense with params.sizes; `userdata` is a TransposeParams.
void transpose_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
