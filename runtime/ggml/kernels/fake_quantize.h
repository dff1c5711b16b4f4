// Rows rounded to integers of their own scale, and back.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// Of `rows` rows of `count` elements; the formula is in the schema.
struct FakeQuantizeParams {
  int64_t rows = 0;
  int64_t count = 0;
  float low = 0;
  float high = 0;
  float eps = 0;
};

// A ggml custom op: src[0] and the result are dense, float32. They may be the same memory if there
// are several rows. `userdata` is a FakeQuantizeParams. A row with a NaN becomes NaN, as in torch.
void fake_quantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
