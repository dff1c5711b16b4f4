// Pairs of bfloat16, as the instruction of x86 takes them that multiplies two at a time and adds
// them up in float32 (AVX512-BF16).
#pragma once

#include <cstdint>

#include "panels.h"
#include "tiles.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define GGD_PAIRS
#endif

namespace ggml_delegate {

// Whether the processor does twice as much by pairs as by products of float32.
bool has_fast_pairs();

// Two rows of a panel of bfloat16 at a time as 16 pairs, (depth + 1) / 2 times. False if a number
// is infinite, no number or not normal, which the instructions take for 0.
bool pair_rows(const uint16_t* rows, int64_t depth, uint32_t* pairs);

// The rows of a block as pairs, one row after another. False if a number is not one of bfloat16, or
// not finite, or those of a row are so small that products may not be normal.
bool pair_left(const GemmBlock& block, uint32_t* pairs);

}  // namespace ggml_delegate
