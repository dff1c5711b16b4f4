#include <executorch/runtime/core/exec_aten/util/tensor_dimension_limit.h>
#include <executorch/runtime/executor/method_meta.h>

#include <algorithm>

#include "runtime/program/errors.h"
#include "runtime/program/log_capture.h"
#include "runtime/program/method.h"

namespace orchestrator {
namespace {

using executorch::runtime::Error;
using executorch::runtime::kTensorDimensionLimit;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;

bool is_permutation(const std::vector<uint8_t>& dim_order) {
  std::vector<bool> seen(dim_order.size(), false);
  for (const uint8_t dim : dim_order) {
    if (dim >= seen.size() || seen[dim]) {
      return false;
    }
    seen[dim] = true;
  }
  return true;
}

TensorInfo read_tensor(const executorch::runtime::TensorInfo& meta, const std::string& where) {
  TensorInfo info;
  info.dtype = find_dtype(meta.scalar_type());
  if (info.dtype == nullptr) {
    throw ProgramError(where + ": dtype number " +
                           std::to_string(static_cast<int>(meta.scalar_type())) +
                           " cannot cross a method's boundary",
                       Error::NotSupported);
  }
  info.sizes.assign(meta.sizes().begin(), meta.sizes().end());
  info.dim_order.assign(meta.dim_order().begin(), meta.dim_order().end());
  if (info.sizes.size() > kTensorDimensionLimit || info.dim_order.size() != info.sizes.size() ||
      !is_permutation(info.dim_order)) {
    throw ProgramError(where + ": sizes " + list_text(info.sizes) + " and dim order " +
                           list_text(info.dim_order) + " do not describe a tensor",
                       Error::InvalidProgram);
  }
  info.is_memory_planned = meta.is_memory_planned();
  info.size_bytes = meta.nbytes();
  return info;
}

ValueInfo read_value(const Result<Tag>& tag, const Result<executorch::runtime::TensorInfo>& tensor,
                     const std::string& where, LogCapture& log) {
  if (!tag.ok()) {
    throw ProgramError(where + " cannot be read", tag.error(), log.take());
  }
  ValueInfo info;
  info.tag = tag.get();
  if (info.tag == Tag::Tensor) {
    if (!tensor.ok()) {
      throw ProgramError(where + " cannot be read", tensor.error(), log.take());
    }
    info.tensor = read_tensor(tensor.get(), where);
  }
  log.take();  // asking a scalar for its tensor logs an error
  return info;
}

std::string read_backend(const MethodMeta& meta, size_t index, const std::string& where) {
  const Result<const char*> name = meta.get_backend_name(index);
  // A delegate without an id comes back as the address of a member of a null object.
  constexpr uintptr_t kNullPage = 4096;
  if (!name.ok() || reinterpret_cast<uintptr_t>(name.get()) < kNullPage) {
    throw ProgramError(where + "delegate " + std::to_string(index) + " has no backend",
                       Error::InvalidProgram);
  }
  return name.get();
}

}  // namespace

MethodInfo read_method_info(const MethodMeta& meta, const std::string& source) {
  LogCapture log;
  MethodInfo info;
  info.name = meta.name();
  const std::string where = source + ": method '" + info.name + "', ";
  for (size_t i = 0; i < meta.num_inputs(); ++i) {
    info.inputs.push_back(read_value(meta.input_tag(i), meta.input_tensor_meta(i),
                                     where + "input " + std::to_string(i), log));
  }
  for (size_t i = 0; i < meta.num_outputs(); ++i) {
    info.outputs.push_back(read_value(meta.output_tag(i), meta.output_tensor_meta(i),
                                      where + "output " + std::to_string(i), log));
  }
  for (size_t i = 0; i < meta.num_backends(); ++i) {
    const std::string backend = read_backend(meta, i, where);
    if (std::find(info.backends.begin(), info.backends.end(), backend) == info.backends.end()) {
      info.backends.push_back(backend);
    }
  }
  return info;
}

}  // namespace orchestrator
