// Conversions between the caller's dtypes and the ones inside a graph (float32 and int32).
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include <vector>

#include "ir_generated.h"
#include "log.h"

namespace ggml_delegate {

executorch::aten::ScalarType scalar_type(ir::DType dtype);

// Fills `staging` (one 4-byte element each) from the caller's data. Errors: InvalidArgument for an
// int64 beyond int32.
Error convert_input(const void* data, ir::DType dtype, std::vector<float>& staging);

// Writes `count` elements of the graph to the caller's memory.
void convert_output(const void* data, ir::DType dtype, size_t count, void* destination);

}  // namespace ggml_delegate
