// Custom ops that compute each element of a tensor from the same element of another.
#pragma once

#include <ggml.h>

#include "ir_generated.h"
#include "precision.h"

namespace ggml_delegate {

// The numbers of a function of one element; which of them count is said at its kernel.
struct MapParams {
  float a = 0;
  float b = 0;
  float c = 0;
  Precision precision = Precision::Float32;  // of the result
};

// Kernels take src[0], float32 with ne[0] elements in sequence, and a dense result of the same ne,
// which may be the same memory. `userdata` is a MapParams.
ggml_custom_op_t unary_kernel(ir::UnaryKind kind);  // null for a kind that does not exist

void affine_kernel(ggml_tensor* result, int ith, int nth, void* userdata);      // a x + b
void clamp_kernel(ggml_tensor* result, int ith, int nth, void* userdata);       // to [a, b]
void leaky_relu_kernel(ggml_tensor* result, int ith, int nth, void* userdata);  // x < 0: a x
// x < 0: a (exp(c x) - 1), else b x
void elu_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
// log(1 + exp(a x)) / a, and x where a x > b
void softplus_kernel(ggml_tensor* result, int ith, int nth, void* userdata);
void pow_kernel(ggml_tensor* result, int ith, int nth, void* userdata);    // x^a
void round_kernel(ggml_tensor* result, int ith, int nth, void* userdata);  // x

}  // namespace ggml_delegate
