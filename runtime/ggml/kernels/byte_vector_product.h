// Products of many rows of integers with packed weights of integers, by vectors.
#pragma once

#include "integer_product.h"
#include "work.h"

namespace ggml_delegate {

// Whether there are instructions for it, and rows enough to make them, and the panels, ready for
// it.
bool byte_vectors_are_faster(const IntegerProduct& op, Range rows);

// `rows` and `panels` of the result. Sums of a group are exact.
void multiply_bytes_by_vectors(const IntegerProduct& op, Range rows, Range panels);

}  // namespace ggml_delegate
