// libFuzzer: whole .pte files with ggml delegates, through the loader that everything else uses.
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "harness.h"
#include "mutator.h"
#include "runtime/ggml/guard.h"
#include "runtime/program/errors.h"
#include "runtime/program/program.h"
#include "segments.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 20;
// Input tensors of the sizes that a method asks for; nothing when they are unreasonably large.
bool make_inputs(const orchestrator::MethodInfo& info, std::vector<std::vector<uint8_t>>& memory,
                 std::vector<orchestrator::Input>& inputs) {
  for (const orchestrator::ValueInfo& value : info.inputs) {
    if (value.tag != executorch::runtime::Tag::Tensor) {
      inputs.emplace_back(value.value);
      continue;
    }
    if (value.tensor.size_bytes > kMaxInputBytes || value.tensor.dtype == nullptr) return false;
    memory.emplace_back(value.tensor.size_bytes, 1);
    orchestrator::TensorView view;
    view.dtype = value.tensor.dtype;
    view.data = memory.back().data();
    view.sizes = value.tensor.sizes;
    view.strides = orchestrator::dense_strides(view.sizes, value.tensor.dim_order);
    inputs.emplace_back(view);
  }
  return true;
}

void run(const uint8_t* data, size_t size) {
  auto copy = std::make_shared<orchestrator::AlignedBuffer>(size);
  std::memcpy(copy->data(), data, size);
  const void* bytes = copy->data();
  const auto program = orchestrator::Program::from_bytes(std::move(copy), bytes, size, {});
  for (const std::string& name : program->method_names()) {
    std::vector<std::vector<uint8_t>> memory;
    std::vector<orchestrator::Input> inputs;
    if (make_inputs(program->method(name), memory, inputs))
      (void)program->run(name, inputs, nullptr);
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  ggml_delegate::set_memory_limit(ggml_delegate::fuzz::kMemoryLimit);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    run(data, size);
  } catch (const std::exception&) {
    // A refusal; what must not happen ends the process.
  }
  return 0;
}

// Changes a delegate's IR, or bytes behind ExecuTorch's own part of the file, or cuts the file.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t /*max_size*/,
                                          unsigned seed) {
  std::mt19937 random(seed);
  const auto parts = ggml_delegate::fuzz::find_ir(data, size);
  if (parts.empty()) return size;
  const auto [offset, length] = parts[random() % parts.size()];
  switch (random() % 8) {
    case 0:
      return size - random() % (size / 2);
    case 1:
      data[offset + random() % (size - offset)] = static_cast<uint8_t>(random());
      return size;
    case 2:
    case 3:
      ggml_delegate::fuzz::scramble_ir(data + offset, length, seed);
      return size;
    default:
      const auto changed = ggml_delegate::fuzz::mutate_ir(data + offset, length, seed);
      if (!changed.empty() && changed.size() <= length) {
        std::memcpy(data + offset, changed.data(), changed.size());
      } else {
        ggml_delegate::fuzz::scramble_ir(data + offset, length, seed);
      }
      return size;
  }
}
