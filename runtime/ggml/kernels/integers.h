// Packed weights of integers, as right factors of products.
#pragma once

#include <cstdint>

#include "gemm.h"

namespace ggml_delegate {

// With so many rows or fewer, a product reads the weight once, and expands it in registers.
inline constexpr int64_t kFewRows = 4;

// Rows k0 .. k0 + depth of panel number `panel` of a weight with k rows, as floats [depth, 16].
void expand_integers(const RightFactor& right, int64_t k, int64_t panel, int64_t k0, int64_t depth,
                     float* floats);

// As gemm(), for at most kFewRows rows, whose left factor has data.
void few_rows_times_integers(const Gemm& op, int ith, int nth);

}  // namespace ggml_delegate
