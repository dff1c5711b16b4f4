#include "harness.h"

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/named_data_map.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "runtime/ggml/convert.h"
#include "runtime/ggml/executor.h"
#include "runtime/ggml/guard.h"

namespace ggml_delegate::fuzz {
namespace {

using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::NamedDataMap;
using executorch::runtime::Span;
using executorch::runtime::TensorLayout;
using TensorImpl = executorch::runtime::etensor::TensorImpl;

// What one program may ask of the harness: larger ones are slow, not wrong.
constexpr int64_t kMaxElements = int64_t{1} << 16;
constexpr int64_t kMaxTotalElements = int64_t{1} << 18;

// Weights of the right size under whatever name the program uses.
class MadeUpWeights final : public NamedDataMap {
 public:
  explicit MadeUpWeights(const Program& program) : program_(program) {}

  Result<FreeableBuffer> get_data(std::string_view key) const override {
    for (size_t i = 0; i < program_.tensor_count(); ++i) {
      const ir::Tensor& tensor = program_.tensor(i);
      if (!is_constant(tensor) || tensor.data_key()->string_view() != key) continue;
      const auto sizes = program_.sizes(i, std::vector<int64_t>(program_.symbol_count()));
      if (!sizes.ok()) return sizes.error();
      const int64_t count = element_count(sizes.get());
      if (count > kMaxElements) return Error::NotFound;
      const size_t bytes = static_cast<size_t>(count) * element_size(tensor.dtype());
      auto* data = new uint8_t[bytes];
      fill(data, count, tensor.dtype(), i);
      return FreeableBuffer(
          data, bytes, [](void*, void* made, size_t) { delete[] static_cast<uint8_t*>(made); });
    }
    return Error::NotFound;
  }
  Result<const TensorLayout> get_tensor_layout(std::string_view) const override {
    return Error::NotImplemented;
  }
  Error load_data_into(std::string_view, void*, size_t) const override {
    return Error::NotImplemented;
  }
  Result<uint32_t> get_num_keys() const override { return Error::NotImplemented; }
  Result<const char*> get_key(uint32_t) const override { return Error::NotImplemented; }

  static void fill(void* data, int64_t count, ir::DType dtype, size_t salt) {
    for (int64_t i = 0; i < count; ++i) {
      const int value = static_cast<int>((static_cast<size_t>(i) * 7 + salt * 3) % 13) - 3;
      switch (dtype) {
        case ir::DType_Float32:
          static_cast<float*>(data)[i] = static_cast<float>(value) / 4;
          break;
        case ir::DType_Float16:
        case ir::DType_BFloat16:
          static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(0x3c00 + value);
          break;
        case ir::DType_Int32:
          static_cast<int32_t*>(data)[i] = value;
          break;
        case ir::DType_Int64:
          static_cast<int64_t*>(data)[i] = value;
          break;
        case ir::DType_Bool:
          static_cast<uint8_t*>(data)[i] = value > 0;
          break;
        case ir::DType_Int8:
        case ir::DType_UInt8:
          static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(value);
          break;
      }
    }
  }

 private:
  const Program& program_;
};

// A tensor with memory of exactly its size, so that a read or write beyond it is noticed.
struct Argument {
  std::vector<int32_t> sizes;
  std::vector<uint8_t> order;
  std::vector<int32_t> strides;
  std::unique_ptr<uint8_t[]> data;
  std::unique_ptr<TensorImpl> tensor;

  Argument(const Sizes& of, const Order& in, ir::DType dtype, size_t salt)
      : sizes(of.begin(), of.end()), order(in.begin(), in.end()), strides(of.size(), 1) {
    const int64_t count = element_count(of);
    int32_t stride = 1;
    for (size_t i = order.size(); i-- > 0 && count > 0;) {
      strides[order[i]] = stride;
      stride *= sizes[order[i]];
    }
    data.reset(new uint8_t[static_cast<size_t>(count) * element_size(dtype) + (count == 0)]);
    MadeUpWeights::fill(data.get(), count, dtype, salt);
    tensor = std::make_unique<TensorImpl>(scalar_type(dtype), static_cast<ssize_t>(sizes.size()),
                                          sizes.data(), data.get(), order.data(), strides.data(),
                                          executorch::runtime::TensorShapeDynamism::DYNAMIC_BOUND);
  }
};

class Arguments {
 public:
  // Makes an argument for every input and output at these symbol values.
  bool make(const Program& program, const std::vector<int64_t>& symbols) {
    for (uint32_t i = 0; i < program.input_count(); ++i) {
      const size_t tensor = program.ir().inputs()->Get(i);
      if (program.tensor(tensor).is_scalar()) {
        values_.emplace_back(scalar(program, i, symbols));
      } else if (!add(program, tensor, symbols)) {
        return false;
      }
    }
    for (uint32_t i = 0; i < program.output_count(); ++i) {
      if (!add(program, program.ir().outputs()->Get(i), symbols)) return false;
    }
    for (EValue& value : values_) pointers_.push_back(&value);
    return true;
  }

  Span<EValue*> span() { return {pointers_.data(), pointers_.size()}; }

 private:
  bool add(const Program& program, size_t tensor, const std::vector<int64_t>& symbols) {
    const auto sizes = program.sizes(tensor, symbols);
    if (!sizes.ok() || element_count(sizes.get()) > kMaxElements) return false;
    for (const int64_t size : sizes.get()) {
      if (size > kMaxElements) return false;  // of an empty tensor; ExecuTorch's sizes are int32
    }
    tensors_.push_back(std::make_unique<Argument>(sizes.get(), program.order(tensor),
                                                  program.tensor(tensor).dtype(), tensor));
    values_.emplace_back(executorch::aten::Tensor(tensors_.back()->tensor.get()));
    return true;
  }

  static int64_t scalar(const Program& program, uint32_t input,
                        const std::vector<int64_t>& symbols) {
    for (uint32_t i = 0; i < symbols.size(); ++i) {
      const ir::Binding& binding = *program.ir().bindings()->Get(i);
      if (binding.input() == input && binding.dim() < 0) {
        return symbols[binding.symbol()] * binding.scale() + binding.offset();
      }
    }
    return 1;
  }

  std::vector<std::unique_ptr<Argument>> tensors_;
  std::vector<EValue> values_;
  std::vector<EValue*> pointers_;
};

// As guarded(), but an assertion of ggml that fails is a finding here: nothing that a file says may
// get that far.
template <typename Work>
auto strictly(const Work& work) -> decltype(work()) {
  GgmlScope scope;
  try {
    auto result = work();
    scope.keep();
    return result;
  } catch (const std::bad_alloc&) {
    return Error::MemoryAllocationFailed;
  } catch (const GgmlFailure& failure) {
    std::fprintf(stderr, "reached an assertion of ggml: %s\n", failure.message);
    std::abort();
  }
}

bool is_small(const Program& program, const std::vector<int64_t>& symbols) {
  int64_t total = 0;
  for (size_t i = 0; i < program.tensor_count(); ++i) {
    const auto sizes = program.sizes(i, symbols);
    if (!sizes.ok()) return true;  // the program will say so
    total += element_count(sizes.get());
    if (total > kMaxTotalElements) return false;
  }
  return true;
}

void run_at(const Program& program, Executor& executor, bool upper) {
  std::vector<int64_t> symbols(program.symbol_count());
  for (uint32_t i = 0; i < symbols.size(); ++i) {
    const ir::Symbol& symbol = *program.ir().symbols()->Get(i);
    symbols[i] = upper ? symbol.max() : symbol.min();
  }
  if (!is_small(program, symbols)) return;
  Arguments arguments;
  if (!arguments.make(program, symbols)) return;
  strictly([&] { return executor.execute(arguments.span()); });
}

}  // namespace

void run_ir(const uint8_t* data, size_t size) {
  executorch::runtime::runtime_init();
  auto program = Program::parse(data, size);
  if (!program.ok()) return;
  auto second = Program::parse(data, size);
  const std::vector<int64_t> none(program->symbol_count());
  if (program->symbol_count() == 0 && !is_small(*program, none)) return;
  const MadeUpWeights weights(*program);
  auto executor = strictly([&] { return Executor::create(std::move(second.get()), &weights, 1); });
  if (!executor.ok()) return;
  run_at(*program, **executor, false);
  run_at(*program, **executor, true);
}

}  // namespace ggml_delegate::fuzz
