// Padding with a constant.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "../shape.h"

namespace ggml_delegate {

// Dimensions in memory sequence, outermost first.
struct PadParams {
  Sizes sizes;  // of the source
  Sizes before;
  Sizes after;
  uint32_t fill = 0;  // the constant's bytes

  // Appends a dimension; one without padding joins the one outside it.
  void add(int64_t size, int64_t pad_before, int64_t pad_after);
};

// A ggml custom op: src[0] is dense, of 4-byte elements; `userdata` is a PadParams.
void pad_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
