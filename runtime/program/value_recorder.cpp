#include "runtime/program/value_recorder.h"

#include <cstring>
#include <new>
#include <utility>

namespace orchestrator {

using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::EventTracerDebugLogLevel;
using executorch::runtime::LoggedEValueType;
using executorch::runtime::Result;
using ExecuTorchTensor = executorch::runtime::etensor::Tensor;

namespace {

OutputTensor copied(const ExecuTorchTensor& tensor) {
  OutputTensor copy;
  copy.dtype = find_dtype(tensor.scalar_type());
  copy.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  copy.strides = dense_strides(copy.sizes, {tensor.dim_order().begin(), tensor.dim_order().end()});
  copy.data = AlignedBuffer(tensor.nbytes());
  if (tensor.nbytes() > 0) {
    std::memcpy(copy.data.data(), tensor.const_data_ptr(), tensor.nbytes());
  }
  return copy;
}

}  // namespace

ValueRecorder::ValueRecorder() {
  set_event_tracer_debug_level(EventTracerDebugLogLevel::kIntermediateOutputs);
}

Result<bool> ValueRecorder::log_evalue(const EValue& evalue, LoggedEValueType evalue_type) {
  if (evalue_type != LoggedEValueType::kIntermediateOutput) {
    return false;
  }
  RecordedValue recorded;
  recorded.instruction = static_cast<int64_t>(current_debug_handle());
  if (evalue.isInt()) {
    recorded.value = Scalar(evalue.toInt());
  } else if (evalue.isTensor()) {
    const ExecuTorchTensor& tensor = evalue.toTensor();
    if (find_dtype(tensor.scalar_type()) != nullptr &&
        (tensor.nbytes() == 0 || tensor.const_data_ptr() != nullptr)) {
      try {
        recorded.value = copied(tensor);
      } catch (const std::bad_alloc&) {
        return Error::MemoryAllocationFailed;
      }
    }
  }
  values_.push_back(std::move(recorded));
  return true;
}

}  // namespace orchestrator
