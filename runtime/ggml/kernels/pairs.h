// Products by the instruction of x86 that multiplies pairs of bfloat16 and adds them up in float32
// (AVX512-BF16), for processors where it does twice what a product of float32 does.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace ggml_delegate {

// Whether the build and the processor have it, and it does so there.
bool has_fast_pairs();

// As tile_kernel(), of one part.
TileKernel pair_kernel(int64_t tiles, int64_t panels);

}  // namespace ggml_delegate
