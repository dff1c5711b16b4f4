// Custom ops of two or three operands with broadcasting, over any elements of 4 bytes.
#pragma once

#include <ggml.h>

#include <array>
#include <atomic>

#include "../fault.h"
#include "../shape.h"
#include "ir_generated.h"

namespace ggml_delegate {

inline constexpr size_t kMaxOperands = 3;

// Sizes of the dense result, outermost first, at least one of them, and where each operand's
// elements lie: strides and offsets in elements, stride 0 where the operand is repeated.
struct ElementsParams {
  Sizes sizes;
  std::array<Sizes, kMaxOperands> strides;
  std::array<int64_t, kMaxOperands> offsets{};
  std::atomic<Fault>* overflow = nullptr;  // of integer kernels; null: results wrap
};

// Kernels read src[0], src[1] and, for where, src[2]; `userdata` is an ElementsParams.

// Of two F32 or two I32 tensors, by `integers`; the result is I32, 0 or 1. Null for an unknown
// kind.
ggml_custom_op_t compare_kernel(ir::CompareKind kind, bool integers);
// Of two I32 tensors. Null for an unknown kind.
ggml_custom_op_t integer_kernel(ir::IntegerKind kind);
// src[0] is I32; src[1], src[2] and the result have one type.
void where_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
