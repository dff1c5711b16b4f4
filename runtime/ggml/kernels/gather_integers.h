// Rows of a table of integers in panels by index, as the floats that they stand for.
#pragma once

#include <ggml.h>

#include <atomic>
#include <cstdint>

#include "../fault.h"
#include "gemm.h"

namespace ggml_delegate {

struct GatherIntegersParams {
  int64_t rows = 0;
  int64_t width = 0;  // elements per row
  IntegersLayout integers;
  bool wrap = false;  // indices below 0 count from the end
  std::atomic<Fault>* fault = nullptr;
};

// A ggml custom op: src[0] holds the dense I32 indices, src[1] the integers, and what follows is
// as IntegersLayout reads it. The result is F32, [indices, width]. Each product and each sum is
// rounded, as if a table of floats had been made of them first. An index outside sets `fault`; its
// row is 0. `userdata` is a GatherIntegersParams.
void gather_integers_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
