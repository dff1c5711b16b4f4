// Copies of 4-byte elements between strided places.
#pragma once

#include <ggml.h>

#include <vector>

#include "../shape.h"

namespace ggml_delegate {

// to[to_offset + sum of i * to] = from[from_offset + sum of i * from], outermost dimension first.
// Offsets and strides are in elements.
struct StridedPiece {
  int64_t from_offset = 0;
  int64_t to_offset = 0;
  Sizes sizes;
  Sizes from;
  Sizes to;
};

// The same copy in as few dimensions as possible, at least one.
StridedPiece merged(const StridedPiece& piece);

struct StridedCopyParams {
  int first_source = 0;  // piece i reads result->src[first_source + i]
  std::vector<StridedPiece> pieces;
};

// A ggml custom op: carries out the pieces; `userdata` is a StridedCopyParams.
void strided_copy_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
