// Blocks of matrix products by instructions that multiply bfloat16: by tiles, or by pairs (pairs.h).
#pragma once

#include <cstdint>

#include "gemm.h"
#include "panels.h"

namespace ggml_delegate {

enum class Means : uint8_t { Vectors, Pairs, Tiles };

// What takes the least time for a block of such a product, of what there is.
Means fastest_means(const Gemm& op, int64_t rows, int64_t panels, int64_t depth);

// What `panels` of the right factor add to a block of the result, or its start, as gemm() has it.
// Those which parts of bfloat16 do not stand for, or for pairs a single one, are left to
// `by_vectors`.
void multiply_bfloat16(Means means, const Gemm& op, const GemmBlock& block, Range panels,
                       void (*by_vectors)(const Gemm& op, const GemmBlock& block, Range panels));

}  // namespace ggml_delegate
