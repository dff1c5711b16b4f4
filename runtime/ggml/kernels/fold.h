// Reductions along one dimension that are no sums of floats, and running sums.
#pragma once

#include <ggml.h>

#include "ir_generated.h"

namespace ggml_delegate {

// The source seen as [outer, count, inner], count > 0; a reduction's result is [outer, inner].
struct FoldParams {
  int64_t outer = 1;
  int64_t count = 1;
  int64_t inner = 1;
};

// Custom ops whose src[0] is dense, F32 or, if `integers`, I32; `userdata` is a FoldParams. Results
// of Any, All, ArgMax and ArgMin are I32, others as the source. Null for kinds that there is no
// kernel for here: Mean, sums of floats, Any and All of floats.
ggml_custom_op_t fold_kernel(ir::ReduceKind kind, bool integers);

// A custom op: element i along `count` is the sum of the source's elements 0 .. i.
ggml_custom_op_t cumsum_kernel(bool integers);

}  // namespace ggml_delegate
