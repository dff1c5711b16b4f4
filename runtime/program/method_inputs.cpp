// Checking a method's inputs before ExecuTorch sees them, and handing them over.

#include "runtime/program/errors.h"
#include "runtime/program/log_capture.h"
#include "runtime/program/method.h"

namespace orchestrator {
namespace {

using executorch::runtime::Error;
using executorch::runtime::EValue;
using ExecuTorchTensor = executorch::runtime::etensor::Tensor;
using ExecuTorchTensorImpl = executorch::runtime::etensor::TensorImpl;

std::string describe_found(const Input& input) {
  if (const auto* tensor = std::get_if<TensorView>(&input)) {
    return tensor->dtype->name + std::string(" tensor ") + list_text(tensor->sizes);
  }
  const auto& scalar = std::get<Scalar>(input);
  const Tag tag = tag_of(scalar);
  return tag == Tag::None ? "None" : std::string(kind_name(tag)) + " " + scalar_text(scalar);
}

// ExecuTorch knows only a whole tensor's upper bound; more than the bound in one dimension and
// less in another would pass it.
bool fits(const std::vector<int64_t>& sizes, const TensorInfo& expected) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < 0 || sizes[i] > expected.sizes[i] ||
        (!expected.is_dynamic && sizes[i] != expected.sizes[i])) {
      return false;
    }
  }
  return true;
}

std::string fix_for_layout(const TensorInfo& expected) {
  const std::vector<uint8_t> channels_last = {0, 2, 3, 1};
  std::vector<uint8_t> contiguous(expected.sizes.size());
  for (size_t i = 0; i < contiguous.size(); ++i) {
    contiguous[i] = static_cast<uint8_t>(i);
  }
  if (expected.dim_order == contiguous) {
    return "call .contiguous() on it";
  }
  if (expected.dim_order == channels_last) {
    return "call .contiguous(memory_format=torch.channels_last) on it";
  }
  return "copy it into a tensor with that layout";
}

}  // namespace

std::string LoadedMethod::where_input(size_t index) const {
  return where() + ", input " + std::to_string(index) + ": expected " +
         describe(info_.inputs[index]);
}

void LoadedMethod::check_tensor(size_t index, const Input& input) const {
  const TensorInfo& expected = info_.inputs[index].tensor;
  const auto* found = std::get_if<TensorView>(&input);
  if (found == nullptr || found->dtype != expected.dtype) {
    throw InputTypeError(where_input(index) + ", found " + describe_found(input));
  }
  if (found->sizes.size() != expected.sizes.size() || !fits(found->sizes, expected)) {
    throw InputValueError(where_input(index) + ", found " + describe_found(input));
  }
  if (!is_dense(*found, expected.dim_order)) {
    throw InputValueError(where_input(index) + " with strides " +
                          list_text(dense_strides(found->sizes, expected.dim_order)) +
                          ", found strides " + list_text(found->strides) + ": " +
                          fix_for_layout(expected));
  }
  if (found->data == nullptr && element_count(found->sizes) > 0) {
    throw InputValueError(where_input(index) + ", found a tensor without memory");
  }
}

void LoadedMethod::check_scalar(size_t index, const Input& input) const {
  const Tag expected = info_.inputs[index].tag;
  const auto* found = std::get_if<Scalar>(&input);
  const bool is_int_for_float =
      found != nullptr && expected == Tag::Double && std::holds_alternative<int64_t>(*found);
  if (found == nullptr || (tag_of(*found) != expected && !is_int_for_float)) {
    throw InputTypeError(where_input(index) + ", found " + describe_found(input));
  }
}

void LoadedMethod::set_inputs(const std::vector<Input>& inputs) {
  if (inputs.size() != info_.inputs.size()) {
    throw InputValueError(where() + ": expected " + std::to_string(info_.inputs.size()) +
                          " inputs, found " + std::to_string(inputs.size()));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (info_.inputs[i].tag == Tag::Tensor) {
      check_tensor(i, inputs[i]);
    } else {
      check_scalar(i, inputs[i]);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    set_input(i, inputs[i]);
  }
}

void LoadedMethod::set_input(size_t index, const Input& input) {
  LogCapture log;
  Error error = Error::Ok;
  if (const auto* tensor = std::get_if<TensorView>(&input)) {
    sizes_.assign(tensor->sizes.begin(), tensor->sizes.end());
    // ExecuTorch reads sizes and bytes of what it is handed; the layout is the method's own.
    ExecuTorchTensorImpl impl(tensor->dtype->type, static_cast<ssize_t>(sizes_.size()),
                              sizes_.data(), const_cast<void*>(tensor->data));
    error = method_->set_input(EValue(ExecuTorchTensor(&impl)), index);
  } else {
    const auto& scalar = std::get<Scalar>(input);
    error = set_scalar(index, scalar);
    if (error == Error::InvalidArgument) {
      log.take();
      throw InputValueError(where_input(index) + " (the value it was exported with), found " +
                            scalar_text(scalar));
    }
  }
  if (error != Error::Ok) {
    fail("cannot take input " + std::to_string(index), error, log.take());
  }
}

Error LoadedMethod::set_scalar(size_t index, const Scalar& scalar) {
  if (const auto* boolean = std::get_if<bool>(&scalar)) {
    return method_->set_input(EValue(*boolean), index);
  }
  if (const auto* integer = std::get_if<int64_t>(&scalar)) {
    const bool as_float = info_.inputs[index].tag == Tag::Double;
    return method_->set_input(as_float ? EValue(static_cast<double>(*integer)) : EValue(*integer),
                              index);
  }
  if (const auto* real = std::get_if<double>(&scalar)) {
    return method_->set_input(EValue(*real), index);
  }
  if (const auto* text = std::get_if<std::string>(&scalar)) {
    executorch::runtime::ArrayRef<char> characters(text->data(), text->size());
    return method_->set_input(EValue(&characters), index);
  }
  return method_->set_input(EValue(), index);
}

}  // namespace orchestrator
