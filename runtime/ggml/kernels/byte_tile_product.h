// Products of rows of integers with packed weights of integers, by tiles.
#pragma once

#include "integer_product.h"
#include "work.h"

namespace ggml_delegate {

// Whether tiles are there, multiply such a weight, and take less time than vectors.
bool byte_tiles_are_faster(const IntegerProduct& op, Range rows, Range panels);

// `rows` and `panels` of the result.
void multiply_bytes_by_tiles(const IntegerProduct& op, Range rows, Range panels);

}  // namespace ggml_delegate
