// Builds the ggml graph of a program for one set of sizes; ops/*.cpp lower the single ops.
#pragma once

#include <ggml.h>

#include <atomic>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "fault.h"
#include "kernels/index.h"
#include "kernels/quantized_rows.h"
#include "kernels/split_rows.h"
#include "program.h"
#include "strided.h"
#include "value.h"

namespace ggml_delegate {

struct ContextDeleter {
  void operator()(ggml_context* context) const { ggml_free(context); }
};
using ContextPtr = std::unique_ptr<ggml_context, ContextDeleter>;

struct GraphMemory;

// What a custom op runs.
struct KernelCall {
  ggml_custom_op_t kernel;
  std::shared_ptr<void> params;  // the kernel's userdata
  GraphMemory* memory;
};

// A ggml custom op of one task: runs a KernelCall on as many threads as its size is worth.
void run_kernel(ggml_tensor* result, int ith, int nth, void* call);

// Owns what the nodes of one ggml graph point to.
struct GraphMemory {
  ContextPtr context;
  std::deque<KernelCall> calls;        // userdata of custom ops
  int threads = 1;                     // that kernels may use; set before each computation
  std::vector<ggml_tensor*> in_place;  // see GraphBuilder::allow_in_place
  std::vector<std::shared_ptr<Overwritten>> overwritten;  // in the sequence of the writes
  std::atomic<Fault> fault{Fault::None};
};

// Lowering of one program; every helper checks what ggml would assert.
class GraphBuilder {
 public:
  // `constants[i]` is the data of tensor i, or null. `symbols` are the values of its symbols.
  static Result<GraphBuilder> create(const Program& program, const std::vector<int64_t>& symbols,
                                     const std::vector<const void*>& constants);

  // Lowers all nodes. Afterwards value(i) of every output tensor is set.
  Error build();

  ggml_cgraph* graph() { return graph_; }
  // By node of the IR, how many of the graph's nodes there are once it is lowered.
  const std::vector<int>& node_ends() const { return node_ends_; }
  std::unique_ptr<GraphMemory> take_memory() { return std::move(memory_); }
  const Value& value(size_t tensor) const { return values_[tensor]; }
  // Adds what the executor needs behind the nodes.
  Error expand(ggml_tensor* tensor);
  // Fails when fewer than `tensors` more tensors fit the context.
  Error reserve(size_t tensors) const;
  ggml_context* context() const { return memory_->context.get(); }

  // ---- for ops/*.cpp: the node being lowered -------------------------------------------------
  const ir::Node& node() const { return *node_; }
  const char* name() const { return node_->name() ? node_->name()->c_str() : "?"; }
  size_t input_count() const { return node_->inputs() ? node_->inputs()->size() : 0; }
  bool has_input(size_t i) const {
    return i < input_count() && node_->inputs()->Get(static_cast<uint32_t>(i)) >= 0;
  }
  // Only when has_input(i).
  const Value& input(size_t i) const {
    return values_[static_cast<size_t>(node_->inputs()->Get(static_cast<uint32_t>(i)))];
  }
  // Whether the node is to write into the memory of its input 0, which nothing reads afterwards.
  bool updates_in_place() const { return updates_in_place_; }
  // Between `min` and `max` inputs, the first `min` of them present.
  Error expect_inputs(size_t min, size_t max) const;
  Result<int64_t> evaluate(const ir::Dim& dim) const { return program_->evaluate(dim, symbols_); }
  size_t output_count() const { return node_->outputs()->size(); }
  // The sizes that the IR declares for the node's output, the first if there are several.
  const Sizes& out_sizes() const { return out_sizes_; }
  // And its dtype.
  ir::DType out_dtype() const { return program_->tensor(node_->outputs()->Get(0)).dtype(); }
  // What kernels may round the node's result to, the first if there are several, so that no pass of
  // its own has to.
  Precision out_precision() const;
  // The node's result, or the one of that number. Its sizes must be what the IR declares.
  Error set_output(const Value& value, size_t index = 0);

  // ---- building blocks -----------------------------------------------------------------------
  // A value over `tensor`, which must be laid out as value.h says; dense above rank 4.
  // `precision`: what its numbers are rounded to.
  Value make(ggml_tensor* tensor, const Sizes& sizes, const Order& order,
             Precision precision = Precision::Float32) const;
  // A dense value of the same elements: copies a strided view.
  Value dense(const Value& value);
  // The same elements in memory in another order; at most one copy per (value, order).
  Result<Value> in_order(const Value& value, const Order& order);
  Result<Value> contiguous(const Value& value) {
    return in_order(value, identity_order(value.rank()));
  }
  Result<Value> channels_last(const Value& value) {
    return in_order(value, channels_last_order(value.rank()));
  }
  // Torch's reshape. Free for a contiguous value.
  Result<Value> reshape(const Value& value, const Sizes& sizes);
  // Prepends dimensions of size 1 up to `rank`.
  Value unsqueeze_to(const Value& value, size_t rank);
  // The dense tensor as one with these ne (ggml order, innermost first); the count must agree.
  ggml_tensor* as_2d(ggml_tensor* tensor, int64_t ne0, int64_t ne1);
  ggml_tensor* as_3d(ggml_tensor* tensor, int64_t ne0, int64_t ne1, int64_t ne2);
  ggml_tensor* as_4d(ggml_tensor* tensor, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3);
  // Repeats dimensions of size 1 up to `sizes` (same rank), in the order of `value`.
  Result<Value> broadcast(const Value& value, const Sizes& sizes);

  // The same elements in floats: the value or view itself, unless it is of state that lies in
  // memory in a half type. Converted once, after the last write into it.
  Result<Value> in_floats(const Value& value);
  Result<StridedView> in_floats(const StridedView& view);

  // Notes that `copy` holds what `view` views: it is computed only if something reads it, and a
  // view of it needs no copy.
  void defer(const Value& copy, const StridedView& view);
  // Whether the value waits to be copied; fills `view` with what it is a copy of.
  bool deferred(const Value& value, StridedView* view) const;

  // Notes that `rounded` is what quantizing rows of `source`, and back, leaves of it: it is
  // computed only if something reads these floats.
  void note_quantized(ggml_tensor* rounded, ggml_tensor* source, const FakeQuantizeParams& grid);
  // The integers of rows of k elements, as quantize_rows_kernel makes them; null for a value that
  // is no result of note_quantized, or has other rows. `pairs`: see QuantizeRowsParams.
  ggml_tensor* quantized_rows(const Value& value, int64_t k, bool pairs);
  // The digits of rows that lie in `source`, as split_rows_kernel makes them, once for all that
  // read the same rows.
  ggml_tensor* split_rows(ggml_tensor* source, const SplitRowsParams& params);

  // A custom op with an own kernel, which every thread of the program runs on its part. `params`
  // (trivially destructible or not) lives as long as the graph and is the kernel's userdata.
  // `sources` holds at most 8 tensors.
  template <typename Params>
  ggml_tensor* custom(ggml_custom_op_t kernel, const int64_t (&ne)[4],
                      std::vector<ggml_tensor*> sources, Params params,
                      ggml_type type = GGML_TYPE_F32) {
    return ggml_custom_4d(context(), type, ne[0], ne[1], ne[2], ne[3], sources.data(),
                          static_cast<int>(sources.size()), run_kernel, 1,
                          attach(kernel, std::make_shared<Params>(std::move(params))));
  }
  // The same, writing into the memory of `target`, which becomes source 0.
  template <typename Params>
  ggml_tensor* custom_in_place(ggml_custom_op_t kernel, ggml_tensor* target,
                               std::vector<ggml_tensor*> sources, Params params) {
    return ggml_custom_inplace(context(), target, sources.data(), static_cast<int>(sources.size()),
                               run_kernel, 1,
                               attach(kernel, std::make_shared<Params>(std::move(params))));
  }
  // Lets the result of a custom op take the memory of a source with its ne that nothing reads
  // later, for kernels that read what lies at an element's place only before they write it.
  void allow_in_place(ggml_tensor* result) { memory_->in_place.push_back(result); }
  // Has a computation that fails take back a write into an input's memory.
  void note_overwritten(std::shared_ptr<Overwritten> overwritten) {
    memory_->overwritten.push_back(std::move(overwritten));
  }
  std::atomic<Fault>* fault() { return &memory_->fault; }

 private:
  // What stood for a tensor before.
  struct Replaced {
    size_t tensor;
    Value value;
  };

  GraphBuilder() = default;
  Error lower_node(const ir::Node& node);
  Error lower_op(const ir::Node& node);
  // `as_stored`: of a half type if that is what the file declares, not in floats.
  Error make_leaf(size_t tensor, const void* data, bool as_stored);
  // Replaces inputs of a half type by floats, for a node that does not read them as they are.
  Error floats_for_node(std::vector<Replaced>& replaced);
  // Whether a node's result is computed only if something reads it.
  bool waits(const ggml_tensor* result) const;
  // Whether the node's result, of a half type, holds nothing but numbers of its inputs.
  bool only_moves(ir::DType dtype) const;
  Result<Value> rounded(const Value& value, Precision precision);
  Result<Value> transpose_copy(const Value& value, const Order& order);
  KernelCall* attach(ggml_custom_op_t kernel, std::shared_ptr<void> params);

  const Program* program_ = nullptr;
  std::vector<int64_t> symbols_;
  std::unique_ptr<GraphMemory> memory_;
  ggml_cgraph* graph_ = nullptr;
  size_t max_tensors_ = 0;
  std::vector<int> node_ends_;
  std::vector<Value> values_;
  const ir::Node* node_ = nullptr;
  bool updates_in_place_ = false;
  Sizes out_sizes_;
  struct Reordered {
    const ggml_tensor* source;
    Order source_order;
    Value value;
  };
  std::vector<Reordered> reordered_;
  struct Widened {
    const ggml_tensor* source;
    ggml_tensor* floats;
  };
  std::vector<Widened> widened_;
  struct Deferred {
    const ggml_tensor* copy;
    StridedView view;  // dimensions in the copy's memory sequence
  };
  std::vector<Deferred> deferred_;
  struct Quantized {
    const ggml_tensor* rounded;
    ggml_tensor* source;
    FakeQuantizeParams grid;
    ggml_tensor* rows[2];  // without pairs, and with
    int64_t k[2];
  };
  std::vector<Quantized> quantized_;
  struct Split {
    const ggml_tensor* source;
    SplitRowsParams params;
    ggml_tensor* rows;
  };
  std::vector<Split> split_;
};

// The type of ggml tensor that holds a dtype inside a graph: floats are float32 unless they are a
// weight; integers are int32.
ggml_type activation_type(ir::DType dtype);

}  // namespace ggml_delegate
