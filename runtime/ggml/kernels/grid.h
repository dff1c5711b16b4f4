// Floats rounded to integers of one fixed scale, and back.
#pragma once

#include <ggml.h>

namespace ggml_delegate {

// The formulas are in the schema, at Grid and Quantize.
struct GridParams {
  float scale = 1;
  float factor = 1;  // 1 / scale, rounded once
  float zero_point = 0;
  float low = 0;
  float high = 0;
};

// ggml custom ops: src[0] and the result are dense, with the same ne; `userdata` is a GridParams. A
// NaN counts as the integer 0, as in eager PyTorch on x86.
void quantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata);    // F32 to I32
void dequantize_kernel(ggml_tensor* result, int ith, int nth, void* userdata);  // I32 to F32
// F32 to F32; they may be the same memory.
void round_to_grid_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
