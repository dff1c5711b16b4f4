// The ExecuTorch backend "GgmlBackend".
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/evalue.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "executor.h"
#include "guard.h"

namespace ggml_delegate {
namespace {

using executorch::runtime::ArrayRef;
using executorch::runtime::BackendExecutionContext;
using executorch::runtime::BackendInitContext;
using executorch::runtime::BackendOption;
using executorch::runtime::BackendOptionContext;
using executorch::runtime::CompileSpec;
using executorch::runtime::DelegateHandle;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Span;

constexpr char kBackendId[] = "GgmlBackend";
constexpr char kNumThreadsKey[] = "num_threads";

class GgmlBackend final : public executorch::runtime::BackendInterface {
 public:
  bool is_available() const override { return true; }

  Result<DelegateHandle*> init(BackendInitContext& context, FreeableBuffer* processed,
                               ArrayRef<CompileSpec> /*compile_specs*/) const override {
    int threads = threads_.load();
    const auto option = context.get_runtime_spec<int>(kNumThreadsKey);
    if (option.ok()) {
      threads = option.get();
    } else {
      GGD_CHECK_OR(InvalidArgument, option.error() == Error::NotFound,
                   "option num_threads is not an integer");
    }
    GGD_CHECK_OR(InvalidArgument, threads >= 0 && threads <= kMaxThreads,
                 "option num_threads is %d, expected 0 (ExecuTorch's default) to %d", threads,
                 kMaxThreads);
    return guarded([&]() -> Result<DelegateHandle*> {
      GGD_ASSIGN(Program program, Program::parse(processed->data(), processed->size()));
      processed->Free();
      GGD_ASSIGN(auto executor, Executor::create(std::move(program), context.get_named_data_map(),
                                                 threads > 0 ? threads : default_threads()));
      return static_cast<DelegateHandle*>(executor.release());
    });
  }

  Error execute(BackendExecutionContext& context, DelegateHandle* handle,
                Span<EValue*> args) const override {
    using executorch::runtime::EventTracerProfilingLevel;
    executorch::runtime::EventTracer* tracer = context.event_tracer();
    if (tracer != nullptr &&
        tracer->event_tracer_profiling_level() != EventTracerProfilingLevel::kProfileAllEvents) {
      tracer = nullptr;
    }
    return guarded([&] { return static_cast<Executor*>(handle)->execute(args, tracer); });
  }

  void destroy(DelegateHandle* handle) const override {
    const std::unique_ptr<Executor> executor(static_cast<Executor*>(handle));
  }

  // num_threads (int): for programs loaded from now on; 0 follows ExecuTorch's thread pool.
  Error set_option(BackendOptionContext& /*context*/, const Span<BackendOption>& options) override {
    for (const BackendOption& option : options) {
      GGD_CHECK_OR(InvalidArgument, std::strcmp(option.key, kNumThreadsKey) == 0,
                   "unknown option \"%s\", known: num_threads", option.key);
      const int* threads = std::get_if<int>(&option.value);
      GGD_CHECK_OR(InvalidArgument, threads != nullptr && *threads >= 0 && *threads <= kMaxThreads,
                   "option num_threads must be an integer from 0 to %d", kMaxThreads);
      threads_.store(*threads);
    }
    return Error::Ok;
  }

  Error get_option(BackendOptionContext& /*context*/, Span<BackendOption>& options) override {
    for (BackendOption& option : options) {
      GGD_CHECK_OR(InvalidArgument, std::strcmp(option.key, kNumThreadsKey) == 0,
                   "unknown option \"%s\", known: num_threads", option.key);
      option.value = threads_.load();
    }
    return Error::Ok;
  }

 private:
  std::atomic<int> threads_{0};
};

bool register_ggml_backend() {
  static GgmlBackend backend;
  return executorch::runtime::register_backend({kBackendId, &backend}) == Error::Ok;
}

const bool registered = register_ggml_backend();

}  // namespace
}  // namespace ggml_delegate
