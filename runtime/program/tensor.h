// Tensors and scalars as callers hand them over, and what a method says about them.
#pragma once

#include <executorch/runtime/core/portable_type/scalar_type.h>
#include <executorch/runtime/core/tag.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "runtime/program/aligned_buffer.h"

namespace orchestrator {

using executorch::runtime::Tag;
using executorch::runtime::etensor::ScalarType;

// A dtype that tensors may have at a method's boundary.
struct DType {
  ScalarType type;
  const char* name;  // PyTorch's name: "float32"
  size_t size;       // bytes per element
  char format;       // code of Python's struct module; bfloat16 has none and travels as 'H'
  const char* npy;   // .npy type string; bfloat16 has none and travels as two opaque bytes
};

// The dtype's row, or nullptr for one that cannot cross a boundary.
const DType* find_dtype(ScalarType type);
const DType* find_dtype(const std::string& name);
const DType* find_npy_dtype(const std::string& npy);

// What a method expects or returns at one place.
struct TensorInfo {
  const DType* dtype = nullptr;
  std::vector<int64_t> sizes;      // upper bounds when dynamic
  std::vector<uint8_t> dim_order;  // dimensions from outermost to innermost in memory
  bool is_dynamic = false;
  bool is_memory_planned = false;  // lives in the method's own memory, so it is copied
  size_t size_bytes = 0;           // at `sizes`
};

// A scalar or its absence; a method is specialised on the values of its scalar inputs.
using Scalar = std::variant<std::monostate, bool, int64_t, double, std::string>;

struct ValueInfo {
  Tag tag = Tag::None;
  TensorInfo tensor;  // when tag is Tensor
  Scalar value;       // otherwise; for inputs only
};

struct MethodInfo {
  std::string name;
  std::vector<ValueInfo> inputs;
  std::vector<ValueInfo> outputs;
  std::vector<std::string> backends;  // ids of the delegates it calls, each once
};

// A caller's tensor: `strides` in elements. The memory must outlive the call it is handed to.
struct TensorView {
  const DType* dtype = nullptr;
  const void* data = nullptr;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
};
using Input = std::variant<Scalar, TensorView>;

// A result that owns its memory, dense in some dim order.
struct OutputTensor {
  const DType* dtype = nullptr;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  AlignedBuffer data;
};
using Output = std::variant<Scalar, OutputTensor>;

// "bool", "int", "float", "str", "None" or "tensor".
const char* kind_name(Tag tag);
Tag tag_of(const Scalar& scalar);

// Strides, in elements, of a dense tensor.
std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes,
                                   const std::vector<uint8_t>& dim_order);
// Whether the strides are those of a dense tensor; strides of dimensions of size 1 do not matter.
bool is_dense(const TensorView& tensor, const std::vector<uint8_t>& dim_order);
// Number of elements; sizes are known to be non-negative and to fit.
int64_t element_count(const std::vector<int64_t>& sizes);

// "[1, 3, 8]"
template <typename T>
std::string list_text(const std::vector<T>& items) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(items[i]);
  }
  return text + "]";
}
std::string scalar_text(const Scalar& scalar);
// "float32 [1, 3, 8, 8], dim order [0, 2, 3, 1]", "int 3", ...
std::string describe(const ValueInfo& info);

}  // namespace orchestrator
