// libFuzzer: the loader and the graph builder of the ggml delegate, and what they run.
#include <cstring>

#include "harness.h"
#include "mutator.h"
#include "runtime/ggml/guard.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  ggml_delegate::set_memory_limit(ggml_delegate::fuzz::kMemoryLimit);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ggml_delegate::fuzz::run_ir(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  if (seed % 16 != 0) {
    const auto changed = ggml_delegate::fuzz::mutate_ir(data, size, seed);
    if (!changed.empty() && changed.size() <= max_size) {
      std::memcpy(data, changed.data(), changed.size());
      return changed.size();
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
