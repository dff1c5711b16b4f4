#include "executor.h"

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>

#include <algorithm>
#include <cstring>

#include "convert.h"
#include "guard.h"

namespace ggml_delegate {
namespace {

using executorch::runtime::EValue;
using executorch::runtime::NamedDataMap;
using executorch::runtime::Span;
using Tensor = executorch::aten::Tensor;

constexpr size_t kMaxCachedGraphs = 8;

// The caller's tensor must have the sizes, dtype and dim order that the partition was made for.
Error check_tensor(const Tensor& tensor, const Sizes& sizes, const Order& order, ir::DType dtype,
                   const char* what, size_t index) {
  GGD_CHECK_OR(InvalidArgument, tensor.scalar_type() == scalar_type(dtype),
               "%s %zu has dtype %d, expected %s", what, index,
               static_cast<int>(tensor.scalar_type()), ir::EnumNameDType(dtype));
  GGD_CHECK_OR(InvalidArgument, static_cast<size_t>(tensor.dim()) == sizes.size(),
               "%s %zu has rank %zd, expected %zu", what, index, static_cast<ssize_t>(tensor.dim()),
               sizes.size());
  Order actual;
  for (size_t i = 0; i < sizes.size(); ++i) {
    GGD_CHECK_OR(InvalidArgument, tensor.size(static_cast<ssize_t>(i)) == sizes[i],
                 "%s %zu has size %zd in dimension %zu, expected %lld", what, index,
                 static_cast<ssize_t>(tensor.size(static_cast<ssize_t>(i))), i,
                 static_cast<long long>(sizes[i]));
    actual.push_back(tensor.dim_order()[i]);
  }
  GGD_CHECK_OR(InvalidArgument, is_order(actual, sizes.size()) && same_layout(sizes, actual, order),
               "%s %zu is in another dim order than the partition was made for", what, index);
  return Error::Ok;
}

bool any_copied(const std::vector<Port>& ports) {
  return std::any_of(ports.begin(), ports.end(),
                     [](const Port& port) { return port.tensor != nullptr && !port.bound; });
}

// An output is written while inputs are still being read.
Error check_no_overlap(const Tensor& output, const Tensor& input, size_t out, size_t in) {
  const auto* a = static_cast<const char*>(output.const_data_ptr());
  const auto* b = static_cast<const char*>(input.const_data_ptr());
  GGD_CHECK_OR(InvalidArgument, a + output.nbytes() <= b || b + input.nbytes() <= a,
               "output %zu and input %zu overlap in memory", out, in);
  return Error::Ok;
}

}  // namespace

Executor::Executor(Program program, int threads, ThreadpoolPtr pool)
    : program_(std::move(program)),
      threads_(threads),
      own_pool_(std::move(pool)),
      symbols_(program_.symbol_count(), 0) {}

Result<std::unique_ptr<Executor>> Executor::create(Program program, const NamedDataMap* data,
                                                   int threads) {
  ThreadpoolPtr pool = make_single_thread();
  GGD_CHECK_OR(MemoryAllocationFailed, pool != nullptr, "no memory for a thread pool");
  std::unique_ptr<Executor> executor(new Executor(std::move(program), threads, std::move(pool)));
  GGD_TRY(executor->load_constants(data));
  executor->graphs_.reserve(kMaxCachedGraphs);
  if (executor->symbols_.empty()) {
    const Result<ShapedGraph*> graph = executor->graph_for_symbols();
    if (!graph.ok()) return graph.error();
  }
  return executor;
}

Error Executor::load_constants(const NamedDataMap* data) {
  constants_.assign(program_.tensor_count(), nullptr);
  for (size_t i = 0; i < program_.tensor_count(); ++i) {
    const ir::Tensor& tensor = program_.tensor(i);
    if (!is_constant(tensor)) continue;
    const char* key = tensor.data_key()->c_str();
    GGD_CHECK(data != nullptr, "weight \"%s\" is missing: the file has no named data", key);
    auto buffer = data->get_data(key);
    GGD_CHECK_OR(NotFound, buffer.ok(), "weight \"%s\" is missing in the file's named data", key);
    GGD_ASSIGN(const Sizes sizes, program_.sizes(i, symbols_));
    const auto count = static_cast<size_t>(element_count(sizes));
    const size_t bytes = count * element_size(tensor.dtype());
    GGD_CHECK(buffer->size() == bytes && (bytes == 0 || buffer->data() != nullptr),
              "weight \"%s\" has %zu bytes, expected %zu", key, buffer->size(), bytes);
    GGD_CHECK(bytes > 0, "weight \"%s\" is empty", key);
    const void* start = buffer->data();
    if (reinterpret_cast<uintptr_t>(start) % element_size(tensor.dtype()) != 0) {
      aligned_copies_.emplace_back((bytes + 7) / 8);
      std::memcpy(aligned_copies_.back().data(), start, bytes);
      start = aligned_copies_.back().data();
    }
    constants_[i] = start;
    buffers_.push_back(std::move(buffer.get()));
  }
  return Error::Ok;
}

Error Executor::bind_symbols(Span<EValue*> args) {
  for (uint32_t i = 0; i < symbols_.size(); ++i) {
    const ir::Binding& binding = *program_.ir().bindings()->Get(i);
    const EValue& arg = *args[binding.input()];
    int64_t size = 0;
    if (binding.dim() < 0) {
      GGD_CHECK_OR(InvalidArgument, arg.isInt(), "input %u is not an integer", binding.input());
      size = arg.toInt();
    } else {
      GGD_CHECK_OR(InvalidArgument, arg.isTensor() && arg.toTensor().dim() > binding.dim(),
                   "input %u is not a tensor of rank above %d", binding.input(), binding.dim());
      size = arg.toTensor().size(binding.dim());
    }
    const int64_t scaled = size - binding.offset();
    const ir::Symbol& symbol = *program_.ir().symbols()->Get(binding.symbol());
    GGD_CHECK_OR(InvalidArgument,
                 scaled % binding.scale() == 0 && scaled / binding.scale() >= symbol.min() &&
                     scaled / binding.scale() <= symbol.max(),
                 "dimension %d of input %u is %lld, outside of what the model was exported with",
                 binding.dim(), binding.input(), static_cast<long long>(size));
    symbols_[binding.symbol()] = scaled / binding.scale();
  }
  return Error::Ok;
}

Result<ShapedGraph*> Executor::graph_for_symbols() {
  for (size_t i = 0; i < graphs_.size(); ++i) {
    if (graphs_[i]->symbols() == symbols_) {
      std::rotate(graphs_.begin(), graphs_.begin() + static_cast<ptrdiff_t>(i),
                  graphs_.begin() + static_cast<ptrdiff_t>(i) + 1);
      return graphs_[0].get();
    }
  }
  GgmlScope scope;  // of its own: the graph outlives a failure later in the same call
  GGD_ASSIGN(auto graph, ShapedGraph::create(program_, symbols_, constants_));
  scope.keep();
  if (graphs_.size() == kMaxCachedGraphs) graphs_.pop_back();
  graphs_.insert(graphs_.begin(), std::move(graph));
  return graphs_[0].get();
}

Error Executor::set_inputs(ShapedGraph& graph, Span<EValue*> args) {
  for (size_t i = 0; i < program_.input_count(); ++i) {
    Port& port = graph.inputs()[i];
    if (program_.input(i).is_scalar()) {
      GGD_CHECK_OR(InvalidArgument, args[i]->isInt(), "input %zu is not an integer", i);
      continue;
    }
    GGD_CHECK_OR(InvalidArgument, args[i]->isTensor(), "input %zu is not a tensor", i);
    const Tensor& tensor = args[i]->toTensor();
    GGD_TRY(check_tensor(tensor, port.sizes, port.order, port.dtype, "input", i));
    GGD_CHECK_OR(InvalidArgument, tensor.const_data_ptr() != nullptr, "input %zu has no data", i);
    if (port.bound) {
      // ggml takes no pointer to const, and never writes to a leaf.
      port.bind(const_cast<void*>(tensor.const_data_ptr()));
    } else {
      GGD_TRY(convert_input(tensor.const_data_ptr(), port.dtype, port.staging));
    }
  }
  return Error::Ok;
}

Error Executor::set_outputs(ShapedGraph& graph, Span<EValue*> args) {
  for (size_t i = 0; i < program_.output_count(); ++i) {
    Port& port = graph.outputs()[i];
    EValue& arg = *args[program_.input_count() + i];
    GGD_CHECK_OR(InvalidArgument, arg.isTensor(), "output %zu is not a tensor", i);
    Tensor& tensor = arg.toTensor();
    RankVector<executorch::aten::SizesType> sizes;
    for (const int64_t size : port.sizes) {
      sizes.push_back(static_cast<executorch::aten::SizesType>(size));
    }
    GGD_TRY(executorch::runtime::resize_tensor(
        tensor,
        executorch::aten::ArrayRef<executorch::aten::SizesType>(sizes.begin(), sizes.size())));
    GGD_TRY(check_tensor(tensor, port.sizes, port.order, port.dtype, "output", i));
    GGD_CHECK_OR(InvalidArgument, tensor.const_data_ptr() != nullptr, "output %zu has no data", i);
    const EValue* updated = port.updates < 0 ? nullptr : args[static_cast<size_t>(port.updates)];
    const bool in_place =
        updated != nullptr && updated->toTensor().const_data_ptr() == tensor.const_data_ptr();
    for (size_t j = 0; j < program_.input_count(); ++j) {
      if (!args[j]->isTensor() || (in_place && args[j] == updated)) continue;
      GGD_TRY(check_no_overlap(tensor, args[j]->toTensor(), i, j));
    }
    if (!port.bound) continue;
    if (updated != nullptr && !in_place) {
      std::memcpy(tensor.mutable_data_ptr(), updated->toTensor().const_data_ptr(), tensor.nbytes());
    }
    port.bind(tensor.mutable_data_ptr());
  }
  return Error::Ok;
}

void Executor::copy_outputs(ShapedGraph& graph, Span<EValue*> args) {
  for (size_t i = 0; i < program_.output_count(); ++i) {
    const Port& port = graph.outputs()[i];
    if (port.bound) continue;
    convert_output(port.tensor->data, port.dtype, static_cast<size_t>(element_count(port.sizes)),
                   args[program_.input_count() + i]->toTensor().mutable_data_ptr());
  }
}

Error Executor::execute(Span<EValue*> args, executorch::runtime::EventTracer* tracer) {
  GGD_CHECK_OR(InvalidArgument, args.size() == program_.input_count() + program_.output_count(),
               "%zu arguments, expected %zu inputs and %zu outputs", args.size(),
               program_.input_count(), program_.output_count());
  GGD_TRY(bind_symbols(args));
  const Result<ShapedGraph*> found = graph_for_symbols();
  if (!found.ok()) return found.error();
  ShapedGraph& graph = *found.get();
  GGD_ASSIGN(const ArenaPool::Lease activations, graph.lease_activations());
  {
    const TracedScope scope(any_copied(graph.inputs()) ? tracer : nullptr, kInputsEvent);
    GGD_TRY(set_inputs(graph, args));
  }
  GGD_TRY(set_outputs(graph, args));
  GGD_TRY(graph.compute(threads_, own_pool_.get(), tracer));
  const TracedScope scope(any_copied(graph.outputs()) ? tracer : nullptr, kOutputsEvent);
  copy_outputs(graph, args);
  return Error::Ok;
}

}  // namespace ggml_delegate
