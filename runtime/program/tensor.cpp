#include "runtime/program/tensor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

namespace orchestrator {
namespace {

constexpr std::array<DType, 13> kDTypes = {{
    {ScalarType::Float, "float32", 4, 'f', "<f4"},
    {ScalarType::Double, "float64", 8, 'd', "<f8"},
    {ScalarType::Half, "float16", 2, 'e', "<f2"},
    {ScalarType::BFloat16, "bfloat16", 2, 'H', "|V2"},
    {ScalarType::Char, "int8", 1, 'b', "|i1"},
    {ScalarType::Byte, "uint8", 1, 'B', "|u1"},
    {ScalarType::Short, "int16", 2, 'h', "<i2"},
    {ScalarType::Int, "int32", 4, 'i', "<i4"},
    {ScalarType::Long, "int64", 8, 'q', "<i8"},
    {ScalarType::Bool, "bool", 1, '?', "|b1"},
    {ScalarType::UInt16, "uint16", 2, 'H', "<u2"},
    {ScalarType::UInt32, "uint32", 4, 'I', "<u4"},
    {ScalarType::UInt64, "uint64", 8, 'Q', "<u8"},
}};

template <typename Predicate>
const DType* find(Predicate predicate) {
  const auto found = std::find_if(kDTypes.begin(), kDTypes.end(), predicate);
  return found == kDTypes.end() ? nullptr : &*found;
}

bool is_identity(const std::vector<uint8_t>& dim_order) {
  for (size_t i = 0; i < dim_order.size(); ++i) {
    if (dim_order[i] != i) {
      return false;
    }
  }
  return true;
}

}  // namespace

const DType* find_dtype(ScalarType type) {
  return find([&](const DType& row) { return row.type == type; });
}

const DType* find_dtype(const std::string& name) {
  return find([&](const DType& row) { return row.name == name; });
}

const DType* find_npy_dtype(const std::string& npy) {
  return find([&](const DType& row) {
    const std::string row_npy = row.npy;
    // Byte order says nothing about single bytes and opaque ones; numpy writes either mark.
    const bool order_free = row_npy[0] == '|' && npy.size() > 1 && (npy[0] == '<' || npy[0] == '|');
    return row_npy == npy || (order_free && row_npy.substr(1) == npy.substr(1));
  });
}

const char* kind_name(Tag tag) {
  switch (tag) {
    case Tag::None:
      return "None";
    case Tag::Tensor:
      return "tensor";
    case Tag::String:
      return "str";
    case Tag::Double:
      return "float";
    case Tag::Int:
      return "int";
    case Tag::Bool:
      return "bool";
    default:
      return "list";
  }
}

Tag tag_of(const Scalar& scalar) {
  constexpr std::array<Tag, std::variant_size_v<Scalar>> kTags = {Tag::None, Tag::Bool, Tag::Int,
                                                                  Tag::Double, Tag::String};
  return kTags[scalar.index()];
}

std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes,
                                   const std::vector<uint8_t>& dim_order) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i > 0; --i) {
    const uint8_t dim = dim_order[i - 1];
    strides[dim] = stride;
    stride *= std::max<int64_t>(sizes[dim], 1);
  }
  return strides;
}

bool is_dense(const TensorView& tensor, const std::vector<uint8_t>& dim_order) {
  const std::vector<int64_t>& sizes = tensor.sizes;
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) {
    return true;
  }
  int64_t stride = 1;
  for (size_t i = sizes.size(); i > 0; --i) {
    const uint8_t dim = dim_order[i - 1];
    if (sizes[dim] != 1 && tensor.strides[dim] != stride) {
      return false;
    }
    stride *= sizes[dim];
  }
  return true;
}

int64_t element_count(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

std::string scalar_text(const Scalar& scalar) {
  struct Visitor {
    std::string operator()(std::monostate) const { return "None"; }
    std::string operator()(bool value) const { return value ? "True" : "False"; }
    std::string operator()(int64_t value) const { return std::to_string(value); }
    std::string operator()(double value) const {
      std::array<char, 32> digits;  // the shortest ones that mean this value
      const auto end = std::to_chars(digits.begin(), digits.end(), value).ptr;
      const std::string text(digits.begin(), end);
      return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
    }
    std::string operator()(const std::string& value) const { return "'" + value + "'"; }
  };
  return std::visit(Visitor{}, scalar);
}

std::string describe(const ValueInfo& info) {
  if (info.tag != Tag::Tensor) {
    const bool known = tag_of(info.value) == info.tag && info.tag != Tag::None;
    return kind_name(info.tag) + (known ? " " + scalar_text(info.value) : std::string());
  }
  const TensorInfo& tensor = info.tensor;
  std::string text = tensor.dtype->name + std::string(tensor.is_dynamic ? " up to " : " ") +
                     list_text(tensor.sizes);
  return is_identity(tensor.dim_order) ? text : text + ", dim order " + list_text(tensor.dim_order);
}

}  // namespace orchestrator
