// Custom ops of two tensors with broadcasting.
#pragma once

#include <ggml.h>

#include "../shape.h"
#include "ir_generated.h"
#include "precision.h"

namespace ggml_delegate {

// Sizes of the dense result, outermost first, at least one of them, and where each operand's
// elements lie: strides in elements, 0 where the operand is repeated. Neighbouring dimensions that
// both operands walk through alike should be one.
struct BinaryParams {
  Sizes sizes;
  Sizes a_strides;
  Sizes b_strides;
  int64_t a_offset = 0;  // in elements
  int64_t b_offset = 0;
  float alpha = 1;                           // Add: a + alpha b
  Precision precision = Precision::Float32;  // of the result
};

// Kernels take src[0] and src[1], float32; `userdata` is a BinaryParams. The result may be the
// memory of a source that is read as it is written. Null for a kind that does not exist.
ggml_custom_op_t binary_kernel(ir::BinaryKind kind);

}  // namespace ggml_delegate
