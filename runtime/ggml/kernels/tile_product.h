// Blocks of matrix products by tiles.
#pragma once

#include <cstdint>

#include "gemm.h"
#include "panels.h"

namespace ggml_delegate {

// Whether tiles are there, and take less time than vectors for a block of such a product.
bool tiles_are_faster(const Gemm& op, int64_t rows, int64_t panels, int64_t depth);

// What `panels` of the right factor add to a block of the result, or its start, as gemm() has it.
// Those which parts of bfloat16 do not stand for are left to `by_vectors`.
void multiply_by_tiles(const Gemm& op, const GemmBlock& block, Range panels,
                       void (*by_vectors)(const Gemm& op, const GemmBlock& block, Range panels));

}  // namespace ggml_delegate
