// Products of rows of integers with packed weights of integers.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "gemm.h"
#include "quantized_rows.h"

namespace ggml_delegate {

// Whether integer_linear_kernel takes rows of k elements times a weight of such integers.
bool multiplies_integers(const IntegersLayout& integers, int64_t k);

struct IntegerLinearParams {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  bool has_bias = false;
  IntegersLayout integers;
  ClampParams clamp;
};

// A product whose left factor is what quantize_rows_kernel has made of m rows. row_sums: of each
// group of the integers without their zero point, [m, groups]; where the weight has offsets.
struct IntegerProduct {
  const IntegerLinearParams* params;
  const char* rows;
  const int8_t* weight;
  IntegersParams integers;
  const float* bias;
  float* result;
  const float* row_sums;

  const RowHeader& header(int64_t row) const {
    return *reinterpret_cast<const RowHeader*>(rows + row * quantized_row_bytes(params->k));
  }
  const RowInteger* row(int64_t row) const {
    return reinterpret_cast<const RowInteger*>(&header(row) + 1);
  }
};

// As linear_kernel, but src[0] holds what quantize_rows_kernel has made of m rows. Sums of a group
// are exact; those of several are float32.
void integer_linear_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
