// Matrix products as ggml custom ops.
#pragma once

#include "../shape.h"
#include "clamp.h"
#include "gemm.h"

namespace ggml_delegate {

struct LinearParams {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t offset = 0;  // of the first row in src[0], in elements
  int64_t stride = 0;  // between rows
  bool has_bias = false;
  bool splits = false;  // whether the last source has the rows as split_rows_kernel makes them
  IntegersLayout integers;
  ClampParams clamp;
};

// src[0] holds m rows of k float32, src[1] the weight in panels, then come the bias [n], scales and
// zero points or minimums of integers, and the rows' digits, where there are any; the result is
// [m, n]. `userdata` is a LinearParams.
void linear_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

struct MatMulParams {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  Sizes batch;    // sizes of the dimensions before the last two
  Sizes a_batch;  // and their strides in the sources; 0: the same matrix again
  Sizes b_batch;
  int64_t a_offset = 0;
  int64_t a_stride = 0;  // between rows of a, whose k are neighbours
  int64_t b_offset = 0;
  int64_t b_stride = 0;
  Columns b_columns = Columns::RowMajor;
  bool has_bias = false;
};

// src[0] and src[1] hold float32 matrices [m, k] and [k, n], src[2] the bias [n] when there is
// one; the result is [batch..., m, n]. `userdata` is a MatMulParams.
void matmul_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
