// The ExecuTorch backend "OpenvinoBackend", for the programs that ExecuTorch's own preprocessing
// makes.
//
// ExecuTorch's own delegate takes no options: it computes in bfloat16 where the processor has it,
// and with threads on all cores. This one goes by the compile specs
//   device: OpenVINO's name of it; "CPU" if not given;
//   precision: that floats are computed in, as OpenVINO names it; "f32" if not given;
// and by options of a program that is loaded:
//   num_threads (int): to compute with; 0 is one for every core. It holds for "CPU".
//   precision (text): in place of the compile spec's.
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/platform/log.h>

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/openvino/c_api.h"

namespace openvino_delegate {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::ArrayRef;
using executorch::runtime::BackendExecutionContext;
using executorch::runtime::BackendInitContext;
using executorch::runtime::CompileSpec;
using executorch::runtime::DelegateHandle;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;
using executorch::runtime::Span;

constexpr char kBackendId[] = "OpenvinoBackend";
constexpr int kMaxThreads = 512;

struct Deleter {
  void operator()(ov_core* each) const { library().api.core_free(each); }
  void operator()(ov_compiled_model* each) const { library().api.compiled_model_free(each); }
  void operator()(ov_infer_request* each) const { library().api.infer_request_free(each); }
  void operator()(ov_tensor* each) const { library().api.tensor_free(each); }
  void operator()(ov_output_const_port* each) const { library().api.output_const_port_free(each); }
};
template <typename Kind>
using Owned = std::unique_ptr<Kind, Deleter>;

// Returns whether OpenVINO did what it was asked to; it logs what it says otherwise.
bool did(int status, const char* what) {
  if (status != 0) {
    const char* const why = library().api.get_last_err_msg();
    ET_LOG(Error, "openvino: cannot %s (status %d): %s", what, status, why == nullptr ? "" : why);
  }
  return status == 0;
}

// OpenVINO's element type for one of ExecuTorch's, or -1: those that the two have in common, and
// that OpenVINO does not narrow inside but for indices.
int element_type(ScalarType type) {
  switch (type) {
    case ScalarType::Bool:
      return 1;
    case ScalarType::Float:
      return 4;
    case ScalarType::Char:
      return 7;
    case ScalarType::Int:
      return 9;
    case ScalarType::Long:
      return 10;
    case ScalarType::Byte:
      return 16;
    default:
      return -1;
  }
}

std::string text_of(const std::vector<int64_t>& sizes) {
  std::string text;
  for (const int64_t size : sizes) {
    text += (text.empty() ? "" : ", ") + std::to_string(size);
  }
  return "[" + text + "]";
}

// Dimensions of one element may stand anywhere in a dim order.
bool is_contiguous(const Tensor& tensor) {
  size_t previous = 0;
  for (const auto dim : tensor.dim_order()) {
    if (tensor.size(dim) != 1) {
      if (dim < previous) {
        return false;
      }
      previous = dim;
    }
  }
  return true;
}

// An input or output of a program, and the memory that it was bound to last.
struct Port {
  int type = -1;
  std::vector<int64_t> sizes;
  std::string name{};              // of the value in OpenVINO
  const Port* original = nullptr;  // of an output: where OpenVINO has this value already
  void* data = nullptr;
  size_t bytes = 0;
  Owned<ov_tensor> tensor{};
};

struct Settings {
  std::string device = "CPU";
  std::string precision = "f32";
  int threads = 0;
};

class Executor {
 public:
  // Returns null after a log line. content: read for as long as the executor lives.
  static std::unique_ptr<Executor> create(const char* content, size_t size,
                                          const Settings& settings) {
    auto made = std::make_unique<Executor>();
    return made->load(content, size, settings) ? std::move(made) : nullptr;
  }

  Error execute(Span<EValue*> args) {
    if (args.size() != inputs_.size() + outputs_.size()) {
      ET_LOG(Error, "openvino: a call has %zu arguments, expected %zu inputs and %zu outputs",
             args.size(), inputs_.size(), outputs_.size());
      return Error::InvalidArgument;
    }
    const Api& api = library().api;
    for (size_t i = 0; i < args.size(); ++i) {
      const bool is_input = i < inputs_.size();
      const size_t index = is_input ? i : i - inputs_.size();
      const Error error = bind(*args[i], is_input ? &inputs_[index] : &outputs_[index], index,
                               is_input ? api.infer_request_set_input_tensor_by_index
                                        : api.infer_request_set_output_tensor_by_index);
      if (error != Error::Ok) {
        return error;
      }
    }
    if (!did(api.infer_request_infer(request_.get()), "compute")) {
      return Error::DelegateInvalidHandle;
    }
    for (const Port& output : outputs_) {
      if (output.original != nullptr && output.bytes != 0) {
        std::memcpy(output.data, output.original->data, output.bytes);
      }
    }
    return Error::Ok;
  }

 private:
  using Set = int (*)(ov_infer_request*, size_t, const ov_tensor*);
  using Size = int (*)(const ov_compiled_model*, size_t*);
  using ByIndex = int (*)(const ov_compiled_model*, size_t, ov_output_const_port**);

  bool load(const char* content, size_t size, const Settings& settings) {
    const Api& api = library().api;
    ov_core* core = nullptr;
    if (!did(api.core_create(&core), "start")) {
      return false;
    }
    core_.reset(core);
    if (!set_properties(settings)) {
      return false;
    }
    ov_compiled_model* model = nullptr;
    if (!did(api.core_import_model(core, content, size, settings.device.c_str(), &model),
             "read a program")) {
      return false;
    }
    model_.reset(model);
    ov_infer_request* request = nullptr;
    if (!did(api.compiled_model_create_infer_request(model, &request), "prepare a program")) {
      return false;
    }
    request_.reset(request);
    if (!read_ports(api.compiled_model_inputs_size, api.compiled_model_input_by_index, &inputs_) ||
        !read_ports(api.compiled_model_outputs_size, api.compiled_model_output_by_index,
                    &outputs_)) {
      return false;
    }
    find_originals();
    return true;
  }

  // OpenVINO knows one value as one, with one memory: an output that is an input, or another
  // output, cannot have memory of its own there.
  void find_originals() {
    std::map<std::string, const Port*> known;
    for (const Port& input : inputs_) {
      known.emplace(input.name, &input);
    }
    for (Port& output : outputs_) {
      const auto [found, is_new] = known.emplace(output.name, &output);
      if (!is_new) {
        output.original = found->second;
      }
    }
  }

  // Properties of a core hold for the programs that it reads later.
  bool set_properties(const Settings& settings) {
    const std::string threads = std::to_string(settings.threads);
    const std::pair<const char*, const char*> properties[] = {
        {"INFERENCE_PRECISION_HINT", settings.precision.c_str()},
        {"NUM_STREAMS", "1"},
        {"INFERENCE_NUM_THREADS", threads.c_str()},
        // Its threads are not alone on the cores: other delegates have some as well.
        {"ENABLE_CPU_PINNING", "NO"},
        // Activations stay as they are where weights are integers.
        {"DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"}};
    const size_t count = settings.device == "CPU" ? std::size(properties) : 1;
    for (size_t i = 0; i < count; ++i) {
      const auto& [key, value] = properties[i];
      const int status =
          library().api.core_set_property(core_.get(), settings.device.c_str(), key, value);
      if (!did(status, (std::string("set ") + key + " to " + value).c_str())) {
        return false;
      }
    }
    return true;
  }

  bool read_ports(Size size_of, ByIndex by_index, std::vector<Port>* ports) {
    const Api& api = library().api;
    size_t count = 0;
    if (!did(size_of(model_.get(), &count), "count the values of a program")) {
      return false;
    }
    for (size_t i = 0; i < count; ++i) {
      ov_output_const_port* found = nullptr;
      if (!did(by_index(model_.get(), i, &found), "find a value of a program")) {
        return false;
      }
      const Owned<ov_output_const_port> port(found);
      Port described;
      ov_shape shape{};
      if (!did(api.port_get_element_type(found, &described.type), "tell a value's type") ||
          !did(api.const_port_get_shape(found, &shape),
               "tell a value's sizes; are some dynamic?")) {
        return false;
      }
      char* name = nullptr;
      if (!did(api.port_get_any_name(found, &name), "tell a value's name")) {
        api.shape_free(&shape);
        return false;
      }
      described.name = name;
      api.free(name);
      described.sizes.assign(shape.dims, shape.dims + shape.rank);
      api.shape_free(&shape);
      ports->push_back(std::move(described));
    }
    return true;
  }

  Error bind(const EValue& value, Port* port, size_t index, Set set) {
    if (!value.isTensor()) {
      ET_LOG(Error, "openvino: value %zu of a call is no tensor", index);
      return Error::InvalidArgument;
    }
    const Tensor& tensor = value.toTensor();
    const std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
    if (element_type(tensor.scalar_type()) != port->type || sizes != port->sizes) {
      ET_LOG(
          Error,
          "openvino: value %zu of a call has the sizes %s and ExecuTorch's dtype %d; the program "
          "was made for %s and OpenVINO's element type %d",
          index, text_of(sizes).c_str(), static_cast<int>(tensor.scalar_type()),
          text_of(port->sizes).c_str(), port->type);
      return Error::InvalidArgument;
    }
    if (!is_contiguous(tensor)) {
      ET_LOG(Error, "openvino: value %zu of a call is not contiguous", index);
      return Error::InvalidArgument;
    }
    void* const data = tensor.mutable_data_ptr();
    port->bytes = tensor.nbytes();
    if (port->original != nullptr) {
      port->data = data;
      return Error::Ok;
    }
    if (port->tensor != nullptr && port->data == data) {
      return Error::Ok;
    }
    const ov_shape shape{static_cast<int64_t>(port->sizes.size()), port->sizes.data()};
    ov_tensor* made = nullptr;
    if (!did(library().api.tensor_create_from_host_ptr(port->type, shape, data, &made),
             "take a tensor")) {
      return Error::InvalidArgument;
    }
    Owned<ov_tensor> owned(made);
    if (!did(set(request_.get(), index, made), "take a tensor")) {
      return Error::InvalidArgument;
    }
    port->tensor = std::move(owned);
    port->data = data;
    return Error::Ok;
  }

  // Members go in the opposite order.
  Owned<ov_core> core_;
  Owned<ov_compiled_model> model_;
  std::vector<Port> inputs_, outputs_;
  Owned<ov_infer_request> request_;
};

// A program that was loaded. content: mapped weights are read from it in every run.
struct Loaded {
  FreeableBuffer content;
  std::unique_ptr<Executor> executor;
};

// Runs what may throw for want of memory.
template <typename Work>
auto guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& exception) {
    ET_LOG(Error, "openvino: %s", exception.what());
    return Error::MemoryAllocationFailed;
  }
}

class OpenvinoBackend final : public executorch::runtime::BackendInterface {
 public:
  bool is_available() const override {
    const Library& found = library();
    if (!found.problem.empty()) {
      ET_LOG(Error, "openvino: %s", found.problem.c_str());
    }
    return found.problem.empty();
  }

  Result<DelegateHandle*> init(BackendInitContext& context, FreeableBuffer* processed,
                               ArrayRef<CompileSpec> compile_specs) const override {
    return guarded([&]() -> Result<DelegateHandle*> {
      Settings settings;
      const Error error = read_options(context, compile_specs, &settings);
      if (error != Error::Ok) {
        return error;
      }
      auto executor = Executor::create(static_cast<const char*>(processed->data()),
                                       processed->size(), settings);
      if (executor == nullptr) {
        return Error::InvalidProgram;
      }
      auto loaded = std::make_unique<Loaded>(Loaded{std::move(*processed), std::move(executor)});
      return static_cast<DelegateHandle*>(loaded.release());
    });
  }

  Error execute(BackendExecutionContext& /*context*/, DelegateHandle* handle,
                Span<EValue*> args) const override {
    return guarded([&] { return static_cast<Loaded*>(handle)->executor->execute(args); });
  }

  void destroy(DelegateHandle* handle) const override {
    const std::unique_ptr<Loaded> loaded(static_cast<Loaded*>(handle));
  }

 private:
  static Error read_options(BackendInitContext& context, ArrayRef<CompileSpec> compile_specs,
                            Settings* settings) {
    for (const CompileSpec& spec : compile_specs) {
      std::string text(static_cast<const char*>(spec.value.buffer), spec.value.nbytes);
      if (std::strcmp(spec.key, "device") == 0) {
        settings->device = std::move(text);
      } else if (std::strcmp(spec.key, "precision") == 0) {
        settings->precision = std::move(text);
      }
    }
    const auto precision = context.get_runtime_spec<const char*>("precision");
    if (precision.ok()) {
      settings->precision = precision.get();
    } else if (precision.error() != Error::NotFound) {
      ET_LOG(Error, "openvino: option precision is not a text");
      return Error::InvalidArgument;
    }
    const std::string& known = settings->precision;
    if (known != "f32" && known != "bf16" && known != "f16") {
      ET_LOG(Error, "openvino: precision is \"%s\", expected f32, bf16 or f16", known.c_str());
      return Error::InvalidArgument;
    }
    const auto threads = context.get_runtime_spec<int>("num_threads");
    if (threads.ok()) {
      settings->threads = threads.get();
    } else if (threads.error() != Error::NotFound) {
      ET_LOG(Error, "openvino: option num_threads is not an integer");
      return Error::InvalidArgument;
    }
    if (settings->threads < 0 || settings->threads > kMaxThreads) {
      ET_LOG(Error, "openvino: option num_threads is %d, expected 0 (one per core) to %d",
             settings->threads, kMaxThreads);
      return Error::InvalidArgument;
    }
    return Error::Ok;
  }
};

bool register_openvino_backend() {
  static OpenvinoBackend backend;
  return executorch::runtime::register_backend({kBackendId, &backend}) == Error::Ok;
}

const bool registered = register_openvino_backend();

}  // namespace
}  // namespace openvino_delegate
