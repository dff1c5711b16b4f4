// Products of rows of digits (split_rows.h) with packed weights of integers.
#pragma once

#include <cstdint>

#include "gemm.h"

namespace ggml_delegate {

// Whether m rows of k floats are to be split for a weight of n rows of such integers.
bool splits_rows(const IntegersLayout& integers, int64_t m, int64_t n, int64_t k);

// As gemm(), with the left factor's rows as split_rows_kernel has made them; false, and nothing is
// computed, if one of them is not usable. Sums of a block are exact; those of several are float32.
bool split_rows_times_integers(const Gemm& op, const void* rows, int ith, int nth);

}  // namespace ggml_delegate
