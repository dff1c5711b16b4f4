#include "convert.h"

#include <ggml.h>

#include <cstring>
#include <limits>

namespace ggml_delegate {

using executorch::aten::ScalarType;

namespace {

template <typename Narrow>
void widen(const Narrow* source, size_t count, int32_t* integers) {
  for (size_t i = 0; i < count; ++i) integers[i] = source[i];
}

template <typename Narrow>
void narrow(const int32_t* integers, size_t count, Narrow* destination) {
  for (size_t i = 0; i < count; ++i) destination[i] = static_cast<Narrow>(integers[i]);
}

}  // namespace

ScalarType scalar_type(ir::DType dtype) {
  switch (dtype) {
    case ir::DType_Float32:
      return ScalarType::Float;
    case ir::DType_Float16:
      return ScalarType::Half;
    case ir::DType_BFloat16:
      return ScalarType::BFloat16;
    case ir::DType_Int32:
      return ScalarType::Int;
    case ir::DType_Int64:
      return ScalarType::Long;
    case ir::DType_Bool:
      return ScalarType::Bool;
    case ir::DType_Int8:
      return ScalarType::Char;
    case ir::DType_UInt8:
      return ScalarType::Byte;
  }
  return ScalarType::Undefined;
}

Error convert_input(const void* data, ir::DType dtype, std::vector<float>& staging) {
  const size_t count = staging.size();
  auto* integers = reinterpret_cast<int32_t*>(staging.data());
  switch (dtype) {
    case ir::DType_Float32:
    case ir::DType_Int32:
      std::memcpy(staging.data(), data, count * sizeof(float));
      return Error::Ok;
    case ir::DType_Float16:
      ggml_fp16_to_fp32_row(static_cast<const ggml_fp16_t*>(data), staging.data(),
                            static_cast<int64_t>(count));
      return Error::Ok;
    case ir::DType_BFloat16:
      ggml_bf16_to_fp32_row(static_cast<const ggml_bf16_t*>(data), staging.data(),
                            static_cast<int64_t>(count));
      return Error::Ok;
    case ir::DType_Int64: {
      const auto* source = static_cast<const int64_t*>(data);
      for (size_t i = 0; i < count; ++i) {
        GGD_CHECK_OR(InvalidArgument,
                     source[i] >= std::numeric_limits<int32_t>::min() &&
                         source[i] <= std::numeric_limits<int32_t>::max(),
                     "an int64 input holds %lld, which int32 cannot",
                     static_cast<long long>(source[i]));
        integers[i] = static_cast<int32_t>(source[i]);
      }
      return Error::Ok;
    }
    case ir::DType_Bool: {
      const auto* source = static_cast<const uint8_t*>(data);
      for (size_t i = 0; i < count; ++i) integers[i] = source[i] != 0 ? 1 : 0;
      return Error::Ok;
    }
    case ir::DType_Int8:
      widen(static_cast<const int8_t*>(data), count, integers);
      return Error::Ok;
    case ir::DType_UInt8:
      widen(static_cast<const uint8_t*>(data), count, integers);
      return Error::Ok;
  }
  return Error::InvalidProgram;
}

void convert_output(const void* data, ir::DType dtype, size_t count, void* destination) {
  const auto* floats = static_cast<const float*>(data);
  const auto* integers = static_cast<const int32_t*>(data);
  switch (dtype) {
    case ir::DType_Float32:
    case ir::DType_Int32:
      std::memcpy(destination, data, count * sizeof(float));
      return;
    case ir::DType_Float16:
      ggml_fp32_to_fp16_row(floats, static_cast<ggml_fp16_t*>(destination),
                            static_cast<int64_t>(count));
      return;
    case ir::DType_BFloat16:
      ggml_fp32_to_bf16_row(floats, static_cast<ggml_bf16_t*>(destination),
                            static_cast<int64_t>(count));
      return;
    case ir::DType_Int64:
      for (size_t i = 0; i < count; ++i) static_cast<int64_t*>(destination)[i] = integers[i];
      return;
    case ir::DType_Bool:
      for (size_t i = 0; i < count; ++i) {
        static_cast<uint8_t*>(destination)[i] = integers[i] != 0 ? 1 : 0;
      }
      return;
    case ir::DType_Int8:
      narrow(integers, count, static_cast<int8_t*>(destination));
      return;
    case ir::DType_UInt8:
      narrow(integers, count, static_cast<uint8_t*>(destination));
      return;
  }
}

}  // namespace ggml_delegate
