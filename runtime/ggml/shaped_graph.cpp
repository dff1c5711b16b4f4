#include "shaped_graph.h"

#include <ggml-alloc.h>

#include <algorithm>

#include "guard.h"

namespace ggml_delegate {
namespace {

struct GraphAllocatorDeleter {
  void operator()(ggml_gallocr* allocator) const { ggml_gallocr_free(allocator); }
};
using GraphAllocatorPtr = std::unique_ptr<ggml_gallocr, GraphAllocatorDeleter>;

// Marks memory that the caller will bring, or that has no bytes, so that ggml's allocator leaves
// the tensor alone.
void* const kCallersMemory = reinterpret_cast<void*>(uintptr_t{64});

// Ggml's allocator reuses a source's memory by op code, and all custom ops have one code. While
// this lives, those that allow it show a code for which it does.
class ShownInPlace {
 public:
  explicit ShownInPlace(const std::vector<ggml_tensor*>& tensors) : tensors_(tensors) {
    for (ggml_tensor* tensor : tensors_) tensor->op = GGML_OP_UNARY;
  }
  ~ShownInPlace() {
    for (ggml_tensor* tensor : tensors_) tensor->op = GGML_OP_CUSTOM;
  }
  ShownInPlace(const ShownInPlace&) = delete;
  ShownInPlace& operator=(const ShownInPlace&) = delete;

 private:
  const std::vector<ggml_tensor*>& tensors_;
};

bool takes_caller_memory(ir::DType dtype) {
  return dtype == ir::DType_Float32 || dtype == ir::DType_Int32;
}

}  // namespace

void Port::bind(void* data) {
  if (root->data == data) return;
  root->data = data;
  for (ggml_tensor* view : views) view->data = static_cast<char*>(data) + view->view_offs;
}

Result<std::unique_ptr<ShapedGraph>> ShapedGraph::create(
    const Program& program, const std::vector<int64_t>& symbols,
    const std::vector<const void*>& constants) {
  auto shaped = std::make_unique<ShapedGraph>();
  shaped->symbols_ = symbols;
  shaped->program_ = &program;
  GGD_ASSIGN(GraphBuilder builder, GraphBuilder::create(program, symbols, constants));
  GGD_TRY(builder.build());
  shaped->add_inputs(program, builder);
  GGD_TRY(shaped->add_outputs(program, builder));
  shaped->graph_ = builder.graph();
  shaped->node_ends_ = builder.node_ends();
  shaped->memory_ = builder.take_memory();
  shaped->collect_views();
  shaped->place_empty_tensors();
  GGD_TRY(shaped->plan_activations());
  return shaped;
}

void ShapedGraph::add_inputs(const Program& program, const GraphBuilder& builder) {
  inputs_.resize(program.input_count());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (program.input(i).is_scalar()) continue;
    const Value& value = builder.value(program.ir().inputs()->Get(static_cast<uint32_t>(i)));
    Port& port = inputs_[i];
    port.tensor = port.root = value.tensor;
    port.sizes = value.sizes;
    port.order = value.order;
    port.dtype = program.input(i).dtype();
    port.bound = takes_caller_memory(port.dtype) || is_half(port.tensor);
    port.root->data = kCallersMemory;
    if (!port.bound) {
      check_memory_limit(static_cast<size_t>(value.count()) * sizeof(float));
      port.staging.resize(static_cast<size_t>(value.count()));
      port.root->data = port.staging.data();
    }
  }
}

Error ShapedGraph::add_outputs(const Program& program, GraphBuilder& builder) {
  outputs_.resize(program.output_count());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const size_t index = program.ir().outputs()->Get(static_cast<uint32_t>(i));
    GGD_TRY(builder.reserve(8));
    Port& port = outputs_[i];
    port.updates = program.input_of_output(i);
    const bool updates = port.updates != InPlaceUpdates::kNone;
    Value value = builder.value(index);
    if (!updates) {
      GGD_ASSIGN(value, builder.in_floats(value));
    }
    GGD_ASSIGN(value, builder.in_order(value, program.order(index)));
    GGD_TRY(builder.expand(value.tensor));
    port.tensor = value.tensor;
    port.root = value.tensor->view_src ? value.tensor->view_src : value.tensor;
    port.sizes = value.sizes;
    port.order = value.order;
    port.dtype = program.tensor(index).dtype();
    const ggml_type type = updates ? inputs_[static_cast<size_t>(port.updates)].tensor->type
                                   : activation_type(port.dtype);
    GGD_CHECK(value.tensor->type == type, "output %zu is computed as %s, the file declares %s", i,
              ggml_type_name(value.tensor->type), ir::EnumNameDType(port.dtype));
    if (updates) {
      const Port& input = inputs_[static_cast<size_t>(port.updates)];
      GGD_CHECK(port.root == input.root && port.tensor->view_offs == 0 && port.sizes == input.sizes,
                "output %zu is no update of input %d", i, port.updates);
      port.bound = input.bound;
      continue;
    }
    // The node that computes the output writes it in place when it writes nothing else: the root
    // is neither an input, a constant nor another output.
    port.bound = takes_caller_memory(port.dtype) && port.root->op != GGML_OP_NONE &&
                 port.root->data == nullptr && port.tensor->view_offs == 0 &&
                 ggml_nbytes(port.root) == ggml_nbytes(port.tensor);
    if (port.bound) {
      port.root->data = kCallersMemory;
    } else {
      ggml_set_output(port.tensor);
      ggml_set_output(port.root);
    }
  }
  return Error::Ok;
}

void ShapedGraph::collect_views() {
  ggml_context* context = memory_->context.get();
  const auto collect = [](ggml_tensor* tensor, std::vector<Port>& ports) {
    for (Port& port : ports) {
      if (port.root == tensor->view_src) {
        port.views.push_back(tensor);
        tensor->data = static_cast<char*>(port.root->data) + tensor->view_offs;
      }
    }
  };
  for (ggml_tensor* t = ggml_get_first_tensor(context); t != nullptr;
       t = ggml_get_next_tensor(context, t)) {
    if (t->view_src == nullptr || t->view_src->data == nullptr) continue;
    collect(t, inputs_);
    collect(t, outputs_);
  }
}

// A graph of nothing but empty tensors gets a buffer of no bytes, at no address, from ggml, which
// would then take tensors that it has allocated for some that it has not.
void ShapedGraph::place_empty_tensors() {
  ggml_context* context = memory_->context.get();
  for (ggml_tensor* t = ggml_get_first_tensor(context); t != nullptr;
       t = ggml_get_next_tensor(context, t)) {
    if (ggml_is_empty(t) && t->data == nullptr) t->data = kCallersMemory;
  }
}

// Ggml's allocator works the places out in memory of its own, which is never touched and freed
// again: the activations move to whatever arena a computation leases.
Error ShapedGraph::plan_activations() {
  const GraphAllocatorPtr allocator(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
  {
    const ShownInPlace shown(memory_->in_place);
    GGD_CHECK_OR(MemoryAllocationFailed, ggml_gallocr_alloc_graph(allocator.get(), graph_),
                 "no memory for a partition's activations");
  }
  ggml_context* context = memory_->context.get();
  for (ggml_tensor* t = ggml_get_first_tensor(context); t != nullptr;
       t = ggml_get_next_tensor(context, t)) {
    if (t->buffer == nullptr) continue;
    const auto* base = static_cast<const char*>(ggml_backend_buffer_get_base(t->buffer));
    const auto* end = base + ggml_backend_buffer_get_size(t->buffer);
    const auto* data = static_cast<const char*>(t->data);
    activation_bytes_ = std::max(activation_bytes_, static_cast<size_t>(end - base));
    t->buffer = nullptr;
    if (data >= base && data <= end) activations_.push_back({t, static_cast<size_t>(data - base)});
  }
  plan_ = ggml_graph_plan(graph_, 1, nullptr);
  work_.resize(plan_.work_size);
  plan_.work_data = work_.data();
  const Result<ArenaPool::Lease> lease = lease_activations();  // so that it is there when needed
  return lease.ok() ? Error::Ok : lease.error();
}

Result<ArenaPool::Lease> ShapedGraph::lease_activations() {
  auto lease = arenas_->lease(activation_bytes_);
  if (lease.ok()) place_activations(lease->data());
  return lease;
}

void ShapedGraph::place_activations(std::byte* arena) {
  if (arena == arena_) return;
  for (const Activation& activation : activations_) {
    activation.tensor->data = arena + activation.offset;
  }
  arena_ = arena;
}

Error ShapedGraph::prepare_trace() {
  std::vector<GraphPiece> pieces;
  for (size_t i = 0; i < node_ends_.size(); ++i) {
    const ir::Node& node = *program_->ir().nodes()->Get(static_cast<uint32_t>(i));
    pieces.push_back(
        {node.name() ? node.name()->str() : ir::EnumNameOp(node.op_type()), node_ends_[i]});
  }
  GGD_ASSIGN(traced_, TracedGraph::create(graph_, pieces));
  return Error::Ok;
}

Error ShapedGraph::compute(int threads, ggml_threadpool* caller,
                           executorch::runtime::EventTracer* tracer) {
  memory_->fault.store(Fault::None, std::memory_order_relaxed);
  memory_->threads = threads;
  plan_.threadpool = caller;
  if (tracer != nullptr && traced_ == nullptr) GGD_TRY(prepare_trace());
  for (const auto& overwritten : memory_->overwritten) overwritten->forget();
  const Error error = compute_nodes(tracer);
  if (error == Error::Ok) return error;
  for (auto it = memory_->overwritten.rbegin(); it != memory_->overwritten.rend(); ++it) {
    (*it)->take_back();
  }
  return error;
}

Error ShapedGraph::compute_nodes(executorch::runtime::EventTracer* tracer) {
  const ggml_status status =
      tracer == nullptr ? ggml_graph_compute(graph_, &plan_) : traced_->compute(&plan_, *tracer);
  GGD_CHECK_OR(Internal, status == GGML_STATUS_SUCCESS, "computing a graph failed with status %d",
               static_cast<int>(status));
  GGD_CHECK_OR(InvalidArgument, memory_->fault.load() != Fault::IndexOutOfRange,
               "an index is outside of the tensor that it selects from");
  GGD_CHECK_OR(InvalidArgument, memory_->fault.load() != Fault::IntegerOverflow,
               "an int64 result does not fit the 32 bits that integers have here");
  GGD_CHECK_OR(MemoryAllocationFailed, memory_->fault.load() != Fault::OutOfMemory,
               "no memory for a kernel's scratch space");
  return Error::Ok;
}

}  // namespace ggml_delegate
