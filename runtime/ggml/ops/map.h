// Lowering of ops that compute each element on its own.
#pragma once

#include "../graph.h"
#include "../kernels/map.h"

namespace ggml_delegate {

// Fails unless the value holds float32.
Error require_float(const GraphBuilder& builder, const Value& value);

// The node's only input through a kernel of kernels/map.h, in the input's dim order.
Error lower_map(GraphBuilder& builder, ggml_custom_op_t kernel, MapParams params = {});

}  // namespace ggml_delegate
