// A ggml graph for one set of sizes, with its memory, ready to run.
#pragma once

#include <ggml-cpu.h>

#include <memory>
#include <vector>

#include "arena.h"
#include "graph.h"
#include "threads.h"
#include "traced_graph.h"

namespace ggml_delegate {

// Where a program's input or output meets the caller's memory.
struct Port {
  ggml_tensor* tensor = nullptr;    // holds the elements, dense, in `order`
  bool bound = false;               // `root` is the caller's memory; else the data is copied
  ggml_tensor* root = nullptr;      // the tensor that owns the memory
  std::vector<ggml_tensor*> views;  // into root; their data moves with it
  Sizes sizes;
  Order order;
  ir::DType dtype = ir::DType_Float32;
  std::vector<float> staging;  // of an input that is converted
  // Of an output, the input with which it shares `root`, or InPlaceUpdates::kNone.
  int32_t updates = InPlaceUpdates::kNone;

  // Points the port to the caller's memory.
  void bind(void* data);
};

class ShapedGraph {
 public:
  static Result<std::unique_ptr<ShapedGraph>> create(const Program& program,
                                                     const std::vector<int64_t>& symbols,
                                                     const std::vector<const void*>& constants);

  const std::vector<int64_t>& symbols() const { return symbols_; }
  std::vector<Port>& inputs() { return inputs_; }
  std::vector<Port>& outputs() { return outputs_; }
  ggml_cgraph* graph() { return graph_; }
  // Memory for the activations, to be held from before compute() until the outputs were read.
  Result<ArenaPool::Lease> lease_activations();
  // Computes the outputs from the bound and staged inputs. A tracer, if any, is told of every node
  // of the program, which costs time. Where it fails, inputs that are updated in place are as
  // before.
  Error compute(int threads, ggml_threadpool* caller,
                executorch::runtime::EventTracer* tracer = nullptr);

 private:
  Error add_outputs(const Program& program, GraphBuilder& builder);
  void add_inputs(const Program& program, const GraphBuilder& builder);
  void collect_views();
  void place_empty_tensors();
  Error plan_activations();
  void place_activations(std::byte* arena);
  Error prepare_trace();
  Error compute_nodes(executorch::runtime::EventTracer* tracer);

  std::vector<int64_t> symbols_;
  std::unique_ptr<GraphMemory> memory_;
  std::shared_ptr<ArenaPool> arenas_ = ArenaPool::of_process();
  // A tensor and where it lies in the arena.
  struct Activation {
    ggml_tensor* tensor;
    size_t offset;
  };
  std::vector<Activation> activations_;
  size_t activation_bytes_ = 0;
  std::byte* arena_ = nullptr;  // where they are now
  ggml_cgraph* graph_ = nullptr;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  ggml_cplan plan_{};
  std::vector<uint8_t> work_;
  const Program* program_ = nullptr;
  std::vector<int> node_ends_;           // see GraphBuilder
  std::unique_ptr<TracedGraph> traced_;  // made when a tracer first asks
};

}  // namespace ggml_delegate
