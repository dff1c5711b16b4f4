// A delegate that copies its input to its output, or crashes, hangs, takes more threads, or
// gives another result, as its blob says; for tests of how such delegates are timed.
#include <executorch/runtime/backend/interface.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

namespace {

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

class CrashingBackend final : public executorch::runtime::BackendInterface {
 public:
  bool is_available() const override { return true; }

  Result<DelegateHandle*> init(BackendInitContext& /*context*/, FreeableBuffer* processed,
                               ArrayRef<CompileSpec> /*specs*/) const override {
    return new std::string(static_cast<const char*>(processed->data()), processed->size());
  }

  Error execute(BackendExecutionContext& /*context*/, DelegateHandle* handle,
                Span<EValue*> values) const override {
    const auto& way = *static_cast<std::string*>(handle);
    if (way == "crashes") std::raise(SIGSEGV);
    if (way == "hangs") std::this_thread::sleep_for(std::chrono::hours(1));
    const auto& from = values[0]->toTensor();
    auto to = values[values.size() - 1]->toTensor();
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
    if (way == "helps itself") {  // to two more threads
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
      const auto work = [end] {
        while (std::chrono::steady_clock::now() < end) {
        }
      };
      std::thread first(work);
      std::thread second(work);
      first.join();
      second.join();
    }
    if (way == "is wrong") to.mutable_data_ptr<float>()[0] += 100;
    return Error::Ok;
  }

  void destroy(DelegateHandle* handle) const override { delete static_cast<std::string*>(handle); }
};

CrashingBackend delegate;
const Error registered = executorch::runtime::register_backend({"CrashingBackend", &delegate});

}  // namespace
