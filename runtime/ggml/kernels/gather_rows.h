// Rows of matrices by index.
#pragma once

#include <ggml.h>

#include <atomic>
#include <cstdint>

#include "../fault.h"

namespace ggml_delegate {

struct GatherRowsParams {
  int64_t matrices = 1;
  int64_t rows = 0;     // per matrix
  int64_t width = 1;    // elements per row
  bool wrap = false;    // indices below 0 count from the end
  bool panels = false;  // one matrix of floats in panels of kPanelWidth rows
  std::atomic<Fault>* fault = nullptr;
};

// A ggml custom op: src[0] holds the dense matrices (F32, F16, BF16 or I32), src[1] the dense I32
// indices, the same for each matrix. The result is F32, or I32 of I32 matrices. An index outside
// sets `fault`; its row is 0. `userdata` is a GatherRowsParams.
void gather_rows_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
