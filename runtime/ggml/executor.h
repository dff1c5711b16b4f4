// Runs a program on the caller's tensors; what a delegate handle points to.
#pragma once

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/freeable_buffer.h>
#include <executorch/runtime/core/named_data_map.h>
#include <executorch/runtime/core/span.h>

#include <memory>
#include <vector>

#include "shaped_graph.h"

namespace ggml_delegate {

class Executor {
 public:
  // Looks up the weights in `data` (may be null when there are none); they stay where they are.
  // Builds the graph at once when the program has no dynamic sizes.
  static Result<std::unique_ptr<Executor>> create(Program program,
                                                  const executorch::runtime::NamedDataMap* data,
                                                  int threads);

  // args: the inputs, then the outputs. Allocates nothing for sizes it has seen lately, unless
  // there is a tracer, which is told what the nodes of the program cost.
  Error execute(executorch::runtime::Span<executorch::runtime::EValue*> args,
                executorch::runtime::EventTracer* tracer = nullptr);

 private:
  using EValue = executorch::runtime::EValue;
  Executor(Program program, int threads, ThreadpoolPtr pool);
  Error load_constants(const executorch::runtime::NamedDataMap* data);
  Error bind_symbols(executorch::runtime::Span<EValue*> args);
  Result<ShapedGraph*> graph_for_symbols();
  Error set_inputs(ShapedGraph& graph, executorch::runtime::Span<EValue*> args);
  Error set_outputs(ShapedGraph& graph, executorch::runtime::Span<EValue*> args);
  void copy_outputs(ShapedGraph& graph, executorch::runtime::Span<EValue*> args);

  Program program_;
  int threads_;
  ThreadpoolPtr own_pool_;
  std::vector<executorch::runtime::FreeableBuffer> buffers_;
  std::vector<std::vector<uint64_t>> aligned_copies_;  // of weights that came misaligned
  std::vector<const void*> constants_;                 // by tensor
  std::vector<int64_t> symbols_;
  std::vector<std::unique_ptr<ShapedGraph>> graphs_;  // last used first
};

}  // namespace ggml_delegate
