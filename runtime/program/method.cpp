#include "runtime/program/method.h"

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <new>
#include <utility>

#include "runtime/program/backends.h"
#include "runtime/program/errors.h"
#include "runtime/program/log_capture.h"

namespace orchestrator {

using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::TensorShapeDynamism;
using ExecuTorchTensor = executorch::runtime::etensor::Tensor;

namespace {

// Reading an input this way is deprecated because it marks the input as set; set_inputs() always
// sets every one.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
const EValue& input_value(const executorch::runtime::Method& method, size_t index) {
  return method.get_input(index);
}
#pragma GCC diagnostic pop

Scalar to_scalar(const EValue& value) {
  switch (value.tag) {
    case Tag::Bool:
      return value.toBool();
    case Tag::Int:
      return value.toInt();
    case Tag::Double:
      return value.toDouble();
    case Tag::String: {
      const std::string_view text = value.toString();
      return std::string(text);
    }
    default:
      return std::monostate();
  }
}

// ExecuTorch 1.5.1 logs these errors about an instruction's operator, but forgets them if a later
// instruction has none. Running the method would then call a null kernel.
bool is_lost_error(const std::string& line) {
  const char* const kStarts[] = {"Op index ", "Missing operator name", "Operator name "};
  return std::any_of(std::begin(kStarts), std::end(kStarts),
                     [&](const char* start) { return line.rfind(start, 0) == 0; });
}

bool is_dynamic(const EValue& value) {
  return value.isTensor() && value.toTensor().shape_dynamism() != TensorShapeDynamism::STATIC;
}

// Every cache line once; each thread an equal part.
void read_in_parallel(const void* data, size_t size) {
  constexpr int64_t kCacheLine = 64;
  constexpr int64_t kGrain = 64;  // lines
  const auto* bytes = static_cast<const volatile std::byte*>(data);
  const int64_t lines = static_cast<int64_t>(size) / kCacheLine;
  executorch::extension::parallel_for(0, lines, kGrain, [bytes](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      static_cast<void>(bytes[line * kCacheLine]);
    }
  });
}

}  // namespace

LoadedMethod::LoadedMethod(const executorch::runtime::Program& program, const std::string& source,
                           const std::string& name, SharedState& state,
                           const executorch::runtime::LoadBackendOptionsMap& backend_options,
                           executorch::runtime::EventTracer* tracer)
    : source_(source) {
  info_.name = name;
  LogCapture log;
  const Result<MethodMeta> meta = program.method_meta(name.c_str());
  if (!meta.ok()) {
    fail("cannot be read", meta.error(), log.take());
  }
  info_ = read_method_info(meta.get(), source);
  check_backends(meta.get());
  plan_memory(meta.get(), state);
  load(program, backend_options, tracer);
  finish_info();
  route_outputs();
}

void LoadedMethod::check_backends(const MethodMeta& meta) {
  std::vector<std::string> missing;
  for (const std::string& backend : info_.backends) {
    if (executorch::runtime::get_backend_class(backend.c_str()) == nullptr) {
      missing.push_back(backend);
    }
  }
  if (!missing.empty()) {
    std::string message = "needs backends that are not in this process: " + join(missing, ", ") +
                          "; there are: " + join(registered_backends(), ", ");
    for (const std::string& backend : missing) {
      const std::string origin = origin_of(backend);
      if (!origin.empty()) message += "; " + backend + " comes with " + origin;
    }
    message += "; lower(..., fallback=True) makes programs that run without";
    fail(message, Error::NotFound);
  }
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
    const auto device = meta.memory_planned_buffer_device(i);
    if (!device.ok() || !device->is_cpu()) {
      fail("plans memory on a device other than the CPU", Error::NotSupported);
    }
  }
}

void LoadedMethod::plan_memory(const MethodMeta& meta, SharedState& state) {
  LogCapture log;
  const size_t count = meta.num_memory_planned_buffers();
  arenas_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const Result<int64_t> size = meta.memory_planned_buffer_size(i);
    if (!size.ok()) {
      fail("has no valid memory plan", size.error(), log.take());
    }
    const AlignedBuffer& block = arena(i, count, static_cast<size_t>(size.get()), state);
    arena_spans_.emplace_back(reinterpret_cast<uint8_t*>(block.data()), block.size());
  }
  planned_memory_.emplace(executorch::runtime::Span<executorch::runtime::Span<uint8_t>>(
      arena_spans_.data(), arena_spans_.size()));
  memory_manager_.emplace(&method_allocator_, &*planned_memory_, &temp_allocator_);
}

const AlignedBuffer& LoadedMethod::arena(size_t index, size_t count, size_t size,
                                         SharedState& state) {
  try {
    if (state.holds(index, count)) {
      return state.arena();
    }
    // Zeroed because programs rely on it for state that the file does not initialise.
    return arenas_.emplace_back(AlignedBuffer::zeroed(size));
  } catch (const std::bad_alloc&) {
    fail("asks for " + std::to_string(size) + " bytes for its tensors",
         Error::MemoryAllocationFailed);
  }
}

void LoadedMethod::load(const executorch::runtime::Program& program,
                        const executorch::runtime::LoadBackendOptionsMap& backend_options,
                        executorch::runtime::EventTracer* tracer) {
  LogCapture log;
  Result<executorch::runtime::Method> method = program.load_method(
      info_.name.c_str(), &*memory_manager_, tracer, /*named_data_map=*/nullptr, &backend_options);
  if (!method.ok()) {
    fail("cannot be loaded", method.error(), log.take());
  }
  const std::vector<std::string> lines = log.lines();
  if (std::any_of(lines.begin(), lines.end(), is_lost_error)) {
    fail("cannot be loaded", Error::InvalidProgram, log.take());
  }
  method_.emplace(std::move(method.get()));
}

void LoadedMethod::finish_info() {
  for (size_t i = 0; i < info_.inputs.size(); ++i) {
    const EValue& value = input_value(*method_, i);
    info_.inputs[i].value = to_scalar(value);
    info_.inputs[i].tensor.is_dynamic = is_dynamic(value);
  }
  for (size_t i = 0; i < info_.outputs.size(); ++i) {
    info_.outputs[i].tensor.is_dynamic = is_dynamic(method_->get_output(i));
  }
}

// A method may return an input, a constant, or one value twice; pointing such an output at a new
// buffer would take the value away from its other users.
void LoadedMethod::route_outputs() {
  std::vector<const EValue*> taken;
  for (size_t i = 0; i < info_.inputs.size(); ++i) {
    taken.push_back(&input_value(*method_, i));
  }
  scratch_.resize(info_.outputs.size());
  written_.resize(info_.outputs.size());
  for (size_t i = 0; i < info_.outputs.size(); ++i) {
    const EValue& value = method_->get_output(i);
    const TensorInfo& tensor = info_.outputs[i].tensor;
    const bool own = std::find(taken.begin(), taken.end(), &value) == taken.end();
    taken.push_back(&value);
    if (!value.isTensor() || !own || tensor.is_memory_planned ||
        value.toTensor().const_data_ptr() != nullptr) {
      routes_.push_back(Route::kCopied);
    } else if (tensor.is_dynamic) {
      routes_.push_back(Route::kTrimmed);
      scratch_[i] = allocate_output(i, tensor.size_bytes);
      bind_output(i, scratch_[i].data(), scratch_[i].size());
    } else {
      routes_.push_back(Route::kWritten);
    }
  }
}

AlignedBuffer LoadedMethod::allocate_output(size_t index, size_t size) const {
  try {
    return AlignedBuffer(size);
  } catch (const std::bad_alloc&) {
    fail("asks for " + std::to_string(size) + " bytes for output " + std::to_string(index),
         Error::MemoryAllocationFailed);
  }
}

void LoadedMethod::bind_output(size_t index, std::byte* data, size_t size) {
  LogCapture log;
  const Error error = method_->set_output_data_ptr(data, size, index);
  if (error != Error::Ok) {
    fail("cannot place output " + std::to_string(index), error, log.take());
  }
}

void LoadedMethod::read_memory() {
  std::vector<EValue> values(info_.inputs.size());
  const Error error = method_->get_inputs(values.data(), values.size());
  if (error != Error::Ok) {
    fail("does not tell its inputs", error);
  }
  for (size_t i = 0; i < info_.outputs.size(); ++i) {
    values.push_back(method_->get_output(i));
  }
  for (const EValue& value : values) {
    if (value.isTensor() && value.toTensor().const_data_ptr() != nullptr) {
      read_in_parallel(value.toTensor().const_data_ptr(), value.toTensor().nbytes());
    }
  }
}

void LoadedMethod::execute() {
  for (size_t i = 0; i < routes_.size(); ++i) {
    if (routes_[i] == Route::kWritten) {
      written_[i] = allocate_output(i, info_.outputs[i].tensor.size_bytes);
      bind_output(i, written_[i].data(), written_[i].size());
    }
  }
  LogCapture log;
  const Error error = method_->execute();
  if (error != Error::Ok) {
    fail("failed while running", error, log.take());
  }
}

std::vector<Output> LoadedMethod::take_outputs() {
  std::vector<Output> outputs;
  outputs.reserve(routes_.size());
  for (size_t i = 0; i < routes_.size(); ++i) {
    outputs.push_back(take_output(i));
  }
  return outputs;
}

Output LoadedMethod::take_output(size_t index) {
  const EValue& value = method_->get_output(index);
  if (!value.isTensor()) {
    return to_scalar(value);
  }
  const ExecuTorchTensor& tensor = value.toTensor();
  OutputTensor output;
  output.dtype = find_dtype(tensor.scalar_type());
  output.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  output.strides =
      dense_strides(output.sizes, {tensor.dim_order().begin(), tensor.dim_order().end()});
  if (routes_[index] == Route::kWritten) {
    output.data = std::move(written_[index]);
    return output;
  }
  const size_t size = tensor.nbytes();
  if (tensor.const_data_ptr() == nullptr && size > 0) {
    fail("left output " + std::to_string(index) + " without data", Error::Internal);
  }
  output.data = allocate_output(index, size);
  if (size > 0) {
    std::memcpy(output.data.data(), tensor.const_data_ptr(), size);
  }
  return output;
}

std::string LoadedMethod::where() const { return source_ + ": method '" + info_.name + "'"; }

void LoadedMethod::fail(const std::string& what, Error error, std::vector<std::string> log) const {
  throw ProgramError(where() + " " + what, error, std::move(log));
}

}  // namespace orchestrator
