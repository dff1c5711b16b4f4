#include "graph.h"

#include <algorithm>
#include <new>
#include <utility>

#include "kernels/cast.h"
#include "kernels/map.h"
#include "kernels/transpose.h"
#include "ops/lower.h"
#include "strided.h"
#include "threads.h"

namespace ggml_delegate {
namespace {

// What a tensor is the same elements of, in the same sequence.
const ggml_tensor* reshaped_from(const ggml_tensor* tensor) {
  while (tensor->op == GGML_OP_RESHAPE) tensor = tensor->src[0];
  return tensor;
}

// More tensors than any single lowering makes, apart from those that call reserve() themselves.
constexpr size_t kTensorsPerNode = 48;
// Below this, handing work to another thread costs more than doing it.
constexpr int64_t kMinElementsPerKernel = 1 << 14;
constexpr size_t kMaxTensorsPerGraph = size_t{1} << 23;

Precision precision_of(ir::DType dtype) {
  if (dtype == ir::DType_Float16) return Precision::Float16;
  return dtype == ir::DType_BFloat16 ? Precision::BFloat16 : Precision::Float32;
}

// What the numbers of a tensor are, whatever they were made from.
Precision stored_precision(const ggml_tensor* tensor) {
  if (tensor->type == GGML_TYPE_F16) return Precision::Float16;
  return tensor->type == GGML_TYPE_BF16 ? Precision::BFloat16 : Precision::Float32;
}

// Whether a node reads its input number `index`, which is state, as it lies in memory: it looks at
// no element, or takes those of half types.
bool reads_halves(ir::Op op, size_t index, bool updates_in_place) {
  switch (op) {
    case ir::Op_Permute:
    case ir::Op_Slice:
    case ir::Op_Reshape:
    case ir::Op_Expand:
      return true;
    case ir::Op_Attention:
      return index == 1 || index == 2;
    case ir::Op_IndexPut:
      return index == 0 && updates_in_place;
    default:
      return false;
  }
}

void physical_ne(const Sizes& sizes, const Order& order, int64_t (&ne)[4]) {
  std::fill(std::begin(ne), std::end(ne), int64_t{1});
  if (sizes.size() > 4) {
    ne[0] = element_count(sizes);
    return;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    ne[i] = sizes[order[sizes.size() - 1 - i]];
  }
}

}  // namespace

ggml_type activation_type(ir::DType dtype) {
  switch (dtype) {
    case ir::DType_Float32:
    case ir::DType_Float16:
    case ir::DType_BFloat16:
      return GGML_TYPE_F32;
    case ir::DType_Int32:
    case ir::DType_Int64:
    case ir::DType_Bool:
    case ir::DType_Int8:
    case ir::DType_UInt8:
      return GGML_TYPE_I32;
  }
  return GGML_TYPE_F32;
}

Result<GraphBuilder> GraphBuilder::create(const Program& program,
                                          const std::vector<int64_t>& symbols,
                                          const std::vector<const void*>& constants) {
  GraphBuilder builder;
  builder.program_ = &program;
  builder.symbols_ = symbols;
  builder.memory_ = std::make_unique<GraphMemory>();
  const size_t nodes = program.ir().nodes() ? program.ir().nodes()->size() : 0;
  size_t edges = 0;
  for (size_t i = 0; i < nodes; ++i) {
    const auto* inputs = program.ir().nodes()->Get(static_cast<uint32_t>(i))->inputs();
    edges += inputs ? inputs->size() : 0;
  }
  builder.max_tensors_ = program.tensor_count() + nodes * kTensorsPerNode + edges * 8 +
                         program.output_count() * 8 + 64;
  GGD_CHECK(builder.max_tensors_ <= kMaxTensorsPerGraph, "a partition of %zu nodes is too large",
            nodes);
  ggml_init_params params{};
  params.mem_size = builder.max_tensors_ * ggml_tensor_overhead() +
                    ggml_graph_overhead_custom(builder.max_tensors_, false);
  params.no_alloc = true;
  builder.memory_->context.reset(ggml_init(params));
  GGD_CHECK_OR(MemoryAllocationFailed, builder.memory_->context != nullptr,
               "no memory for a graph of %zu nodes", nodes);
  builder.graph_ = ggml_new_graph_custom(builder.context(), builder.max_tensors_, false);
  builder.values_.resize(program.tensor_count());
  for (size_t i = 0; i < program.tensor_count(); ++i) {
    if (constants[i] != nullptr) GGD_TRY(builder.make_leaf(i, constants[i], true));
  }
  for (size_t i = 0; i < program.input_count(); ++i) {
    const size_t tensor = program.ir().inputs()->Get(static_cast<uint32_t>(i));
    if (program.tensor(tensor).is_scalar()) continue;
    GGD_TRY(builder.make_leaf(tensor, nullptr, program.is_updated_in_place(i)));
  }
  return builder;
}

Error GraphBuilder::make_leaf(size_t tensor, const void* data, bool as_stored) {
  const ir::Tensor& t = program_->tensor(tensor);
  GGD_ASSIGN(const Sizes sizes, program_->sizes(tensor, symbols_));
  const Order order = program_->order(tensor);
  int64_t ne[4];
  physical_ne(sizes, order, ne);
  ggml_type type = activation_type(t.dtype());
  if (as_stored && t.dtype() == ir::DType_Float16) type = GGML_TYPE_F16;
  if (as_stored && t.dtype() == ir::DType_BFloat16) type = GGML_TYPE_BF16;
  if (data != nullptr && t.dtype() == ir::DType_Int8) type = GGML_TYPE_I8;
  GGD_CHECK(data == nullptr || element_size(t.dtype()) == ggml_type_size(type),
            "constant %zu has a dtype that weights cannot have", tensor);
  ggml_tensor* leaf = ggml_new_tensor(context(), type, 4, ne);
  // Constants are never written: ggml takes no pointer to const.
  leaf->data = const_cast<void*>(data);
  values_[tensor] = make(leaf, sizes, order);
  return Error::Ok;
}

Error GraphBuilder::build() {
  const auto* nodes = program_->ir().nodes();
  for (uint32_t i = 0; nodes != nullptr && i < nodes->size(); ++i) {
    updates_in_place_ = program_->updates_in_place(i);
    GGD_TRY(lower_node(*nodes->Get(i)));
    node_ends_.push_back(ggml_graph_n_nodes(graph_));
  }
  return Error::Ok;
}

Error GraphBuilder::lower_node(const ir::Node& node) {
  node_ = &node;
  GGD_ASSIGN(out_sizes_, program_->sizes(node.outputs()->Get(0), symbols_));
  GGD_TRY(reserve(kTensorsPerNode + input_count() * 8));
  std::vector<Replaced> replaced;
  GGD_TRY(floats_for_node(replaced));
  const Error error = lower_op(node);
  for (Replaced& each : replaced) values_[each.tensor] = std::move(each.value);
  GGD_CHECK_OR(InvalidProgram, error == Error::Ok, "node %s (%s) cannot be built", name(),
               ir::EnumNameOp(node.op_type()));
  // In execution order, so that ggml's recursive visit of the parents stays shallow.
  for (const uint32_t out : *node.outputs()) {
    ggml_tensor* tensor = values_[out].tensor;
    GGD_CHECK(tensor != nullptr, "node %s set no output %u", name(), out);
    if (!waits(tensor)) GGD_TRY(expand(tensor));
  }
  return Error::Ok;
}

Error GraphBuilder::floats_for_node(std::vector<Replaced>& replaced) {
  for (size_t i = 0; i < input_count(); ++i) {
    if (!has_input(i)) continue;
    const auto tensor = static_cast<size_t>(node_->inputs()->Get(static_cast<uint32_t>(i)));
    const bool known = std::any_of(replaced.begin(), replaced.end(),
                                   [&](const Replaced& each) { return each.tensor == tensor; });
    if (known || is_constant(program_->tensor(tensor))) continue;
    if (reads_halves(node_->op_type(), i, updates_in_place_)) continue;
    GGD_ASSIGN(const Value floats, in_floats(values_[tensor]));
    if (floats.tensor == values_[tensor].tensor) continue;
    replaced.push_back({tensor, std::exchange(values_[tensor], floats)});
  }
  return Error::Ok;
}

bool GraphBuilder::waits(const ggml_tensor* result) const {
  return std::any_of(deferred_.begin(), deferred_.end(),
                     [&](const Deferred& each) { return each.copy == result; }) ||
         std::any_of(quantized_.begin(), quantized_.end(),
                     [&](const Quantized& each) { return each.rounded == reshaped_from(result); });
}

Error GraphBuilder::lower_op(const ir::Node& node) {
  switch (node.op_type()) {
#define GGD_CASE(Op) \
  case ir::Op_##Op:  \
    return lower(*this, *node.op_as_##Op());
    GGD_FOR_EACH_OP(GGD_CASE)
#undef GGD_CASE
    case ir::Op_NONE:
      break;
  }
  return Error::InvalidProgram;
}

Error GraphBuilder::expand(ggml_tensor* tensor) {
  GGD_CHECK(static_cast<size_t>(ggml_graph_n_nodes(graph_)) + kTensorsPerNode < max_tensors_,
            "a partition's graph is too large");
  ggml_build_forward_expand(graph_, tensor);
  return Error::Ok;
}

Error GraphBuilder::reserve(size_t tensors) const {
  const size_t used = ggml_used_mem(context());
  const size_t total = ggml_get_mem_size(context());
  GGD_CHECK(used + tensors * ggml_tensor_overhead() <= total, "a partition's graph is too large");
  return Error::Ok;
}

Error GraphBuilder::expect_inputs(size_t min, size_t max) const {
  GGD_CHECK(input_count() >= min && input_count() <= max,
            "node %s has %zu inputs, expected %zu to %zu", name(), input_count(), min, max);
  for (size_t i = 0; i < min; ++i) {
    GGD_CHECK(has_input(i), "node %s lacks input %zu", name(), i);
  }
  return Error::Ok;
}

Error GraphBuilder::set_output(const Value& value, size_t index) {
  const uint32_t out = node_->outputs()->Get(static_cast<uint32_t>(index));
  GGD_ASSIGN(const Sizes declared, program_->sizes(out, symbols_));
  GGD_CHECK(value.sizes == declared, "node %s computes other sizes than the file declares", name());
  const ir::DType dtype = program_->tensor(out).dtype();
  const Precision precision = precision_of(dtype);
  const bool fits = precision == Precision::Float32 || precision == value.precision ||
                    precision == stored_precision(value.tensor);
  values_[out] = value;
  if (!fits && !only_moves(dtype)) {
    GGD_ASSIGN(values_[out], rounded(value, precision));
  }
  return Error::Ok;
}

Precision GraphBuilder::out_precision() const { return precision_of(out_dtype()); }

bool GraphBuilder::only_moves(ir::DType dtype) const {
  switch (node_->op_type()) {
    case ir::Op_Copy:
    case ir::Op_Reshape:
    case ir::Op_Permute:
    case ir::Op_Slice:
    case ir::Op_Concat:
    case ir::Op_Expand:
    case ir::Op_Repeat:
    case ir::Op_Index:
    case ir::Op_IndexPut:
    case ir::Op_Gather:
    case ir::Op_Where:
      break;
    case ir::Op_Embedding:
      if (node_->op_as_Embedding()->integers() == nullptr) break;
      return false;
    default:
      return false;
  }
  for (size_t i = 0; i < input_count(); ++i) {
    if (!has_input(i)) continue;
    const auto number = static_cast<size_t>(node_->inputs()->Get(static_cast<uint32_t>(i)));
    const ir::DType given = program_->tensor(number).dtype();
    const bool chooses = activation_type(given) == GGML_TYPE_I32 && node_->op_type() != ir::Op_Copy;
    if (given != dtype && !chooses) return false;
  }
  return true;
}

Result<Value> GraphBuilder::rounded(const Value& value, Precision precision) {
  GGD_CHECK(value.tensor->type == GGML_TYPE_F32, "node %s rounds a tensor of type %s", name(),
            ggml_type_name(value.tensor->type));
  // Kernels take whole rows, which may lie apart.
  const Value x = value.tensor->nb[0] == sizeof(float) ? value : dense(value);
  MapParams params;
  params.precision = precision;
  ggml_tensor* result = custom(round_kernel, x.tensor->ne, {x.tensor}, params);
  allow_in_place(result);
  return make(result, x.sizes, x.order, precision);
}

KernelCall* GraphBuilder::attach(ggml_custom_op_t kernel, std::shared_ptr<void> params) {
  memory_->calls.push_back({kernel, std::move(params), memory_.get()});
  return &memory_->calls.back();
}

void run_kernel(ggml_tensor* result, int /*ith*/, int /*nth*/, void* userdata) {
  const auto& call = *static_cast<const KernelCall*>(userdata);
  // One that writes into its source 0 touches as much of it as it reads of the others.
  const bool in_place = result->view_src != nullptr;
  int64_t elements = in_place ? 0 : ggml_nelements(result);
  for (const ggml_tensor* source : result->src) {
    if (source != nullptr && !(in_place && source == result->src[0])) {
      elements += ggml_nelements(source);
    }
  }
  const int threads = elements < kMinElementsPerKernel ? 1 : call.memory->threads;
  parallel(threads, [&](int ith) {
    try {
      call.kernel(result, ith, threads, call.params.get());
    } catch (const std::bad_alloc&) {
      call.memory->fault.store(Fault::OutOfMemory, std::memory_order_relaxed);
    }
  });
}

Value GraphBuilder::make(ggml_tensor* tensor, const Sizes& sizes, const Order& order,
                         Precision precision) const {
  int64_t ne[4];
  physical_ne(sizes, order, ne);
  if (!std::equal(std::begin(ne), std::end(ne), tensor->ne)) {
    tensor = ggml_reshape_4d(context(), tensor, ne[0], ne[1], ne[2], ne[3]);
  }
  Value value;
  value.tensor = tensor;
  value.sizes = sizes;
  value.order = order;
  value.precision = precision;
  return value;
}

Value GraphBuilder::dense(const Value& value) {
  if (ggml_is_contiguous(value.tensor)) return value;
  for (const Reordered& known : reordered_) {
    if (known.source == value.tensor && known.source_order == value.order &&
        known.value.sizes == value.sizes && known.value.order == value.order) {
      return known.value;
    }
  }
  const Value result = make(ggml_cont(context(), value.tensor), value.sizes, value.order);
  reordered_.push_back({value.tensor, value.order, result});
  return result;
}

Result<Value> GraphBuilder::in_order(const Value& value, const Order& order) {
  GGD_CHECK(is_order(order, value.rank()), "node %s needs an impossible dim order", name());
  if (same_layout(value.sizes, value.order, order)) {
    const Value whole = dense(value);
    return make(whole.tensor, whole.sizes, order);
  }
  for (const Reordered& known : reordered_) {
    if (known.source == value.tensor && known.source_order == value.order &&
        known.value.sizes == value.sizes && known.value.order == order) {
      return known.value;
    }
  }
  GGD_ASSIGN(const Value result, transpose_copy(dense(value), order));
  reordered_.push_back({value.tensor, value.order, result});
  return result;
}

// A copy with its dimensions rearranged. Dimensions that stay neighbours count as one, so that
// most changes of order are one batched matrix transposition.
Result<Value> GraphBuilder::transpose_copy(const Value& value, const Order& order) {
  // Groups of dimensions that are neighbours, in the same sequence, before and after.
  Sizes source_sizes;             // physical sequence of the source
  RankVector<uint8_t> first_dim;  // first dimension of each source group
  for (size_t i = 0; i < value.order.size(); ++i) {
    const uint8_t dim = value.order[i];
    bool joins = false;
    for (size_t j = 1; i > 0 && j < order.size(); ++j) {
      joins = joins || (order[j] == dim && order[j - 1] == value.order[i - 1]);
    }
    if (joins) {
      source_sizes.back() *= value.sizes[dim];
    } else {
      source_sizes.push_back(value.sizes[dim]);
      first_dim.push_back(dim);
    }
  }
  TransposeParams params;
  for (const uint8_t dim : order) {
    for (size_t group = 0; group < first_dim.size(); ++group) {
      if (first_dim[group] == dim) params.axes.push_back(static_cast<uint8_t>(group));
    }
  }
  params.sizes = source_sizes;
  GGD_CHECK(value.tensor->type == GGML_TYPE_F32 || value.tensor->type == GGML_TYPE_I32,
            "node %s needs another dim order of a tensor of type %s", name(),
            ggml_type_name(value.tensor->type));
  int64_t ne[4];
  physical_ne(value.sizes, order, ne);
  ggml_tensor* result = custom(transpose_kernel, ne, {value.tensor}, params, value.tensor->type);
  return make(result, value.sizes, order);
}

Result<Value> GraphBuilder::in_floats(const Value& value) {
  const StridedView view = strided(*this, value);
  if (!is_half(view.base)) return value;
  GGD_ASSIGN(const StridedView floats, in_floats(view));
  return to_value(*this, floats);
}

Result<StridedView> GraphBuilder::in_floats(const StridedView& view) {
  if (!is_half(view.base)) return view;
  // Through ggml's views to what holds all of the state.
  ggml_tensor* whole = view.base;
  while (whole->op == GGML_OP_VIEW || whole->op == GGML_OP_RESHAPE) whole = whole->src[0];
  const size_t before = view.base->view_offs - whole->view_offs;
  StridedView floats = view;
  floats.offset += static_cast<int64_t>(before / ggml_type_size(whole->type));
  const auto known = std::find_if(widened_.begin(), widened_.end(),
                                  [&](const Widened& each) { return each.source == whole; });
  floats.base = known != widened_.end() ? known->floats
                                        : custom(cast_kernel, whole->ne, {whole}, CastParams{});
  if (known == widened_.end()) widened_.push_back({whole, floats.base});
  return floats;
}

Result<Value> GraphBuilder::reshape(const Value& value, const Sizes& sizes) {
  GGD_CHECK(element_count(sizes) == value.count(), "node %s reshapes %lld elements to %lld", name(),
            static_cast<long long>(value.count()), static_cast<long long>(element_count(sizes)));
  GGD_ASSIGN(const Value whole, contiguous(value));
  return make(whole.tensor, sizes, identity_order(sizes.size()));
}

Value GraphBuilder::unsqueeze_to(const Value& value, size_t rank) {
  const size_t extra = rank - value.rank();
  Sizes sizes;
  Order order;
  for (size_t i = 0; i < extra; ++i) {
    sizes.push_back(1);
    order.push_back(static_cast<uint8_t>(i));
  }
  for (size_t i = 0; i < value.rank(); ++i) {
    sizes.push_back(value.sizes[i]);
    order.push_back(static_cast<uint8_t>(value.order[i] + extra));
  }
  Value result = value;
  result.sizes = sizes;
  result.order = order;
  // ne are padded with 1 on the outside, so a strided view up to rank 4 stays as it is.
  return rank > 4 ? make(dense(value).tensor, sizes, order) : result;
}

void GraphBuilder::note_quantized(ggml_tensor* rounded, ggml_tensor* source,
                                  const FakeQuantizeParams& grid) {
  quantized_.push_back({rounded, source, grid, {}, {}});
}

ggml_tensor* GraphBuilder::quantized_rows(const Value& value, int64_t k, bool pairs) {
  if (!value.contiguous()) return nullptr;
  const ggml_tensor* rounded = reshaped_from(value.tensor);
  for (Quantized& each : quantized_) {
    const bool same_rows = each.grid.rows == 1 || each.grid.count == k;
    if (each.rounded != rounded || !same_rows || value.count() % k != 0) continue;
    ggml_tensor*& rows = each.rows[pairs ? 1 : 0];
    if (rows == nullptr) {
      const int64_t ne[4] = {quantized_row_bytes(k), value.count() / k, 1, 1};
      rows = custom(quantize_rows_kernel, ne, {each.source},
                    QuantizeRowsParams{each.grid, k, pairs}, GGML_TYPE_I8);
      each.k[pairs ? 1 : 0] = k;
    }
    if (each.k[pairs ? 1 : 0] == k) return rows;
  }
  return nullptr;
}

ggml_tensor* GraphBuilder::split_rows(ggml_tensor* source, const SplitRowsParams& params) {
  for (const Split& known : split_) {
    if (known.source == source && known.params == params) return known.rows;
  }
  const int64_t ne[4] = {split_row_bytes(params.k), params.m, 1, 1};
  ggml_tensor* rows = custom(split_rows_kernel, ne, {source}, params, GGML_TYPE_I8);
  split_.push_back({source, params, rows});
  return rows;
}

void GraphBuilder::defer(const Value& copy, const StridedView& view) {
  StridedView physical = view;
  for (size_t i = 0; i < copy.order.size(); ++i) {
    physical.sizes[i] = view.sizes[copy.order[i]];
    physical.strides[i] = view.strides[copy.order[i]];
  }
  deferred_.push_back({copy.tensor, physical});
}

bool GraphBuilder::deferred(const Value& value, StridedView* view) const {
  for (const Deferred& waiting : deferred_) {
    if (waiting.copy != value.tensor ||
        waiting.view.sizes != physical_sizes(value.sizes, value.order)) {
      continue;
    }
    *view = waiting.view;
    for (size_t i = 0; i < value.order.size(); ++i) {
      view->sizes[value.order[i]] = waiting.view.sizes[i];
      view->strides[value.order[i]] = waiting.view.strides[i];
    }
    return true;
  }
  return false;
}

ggml_tensor* GraphBuilder::as_2d(ggml_tensor* tensor, int64_t ne0, int64_t ne1) {
  return as_4d(tensor, ne0, ne1, 1, 1);
}

ggml_tensor* GraphBuilder::as_3d(ggml_tensor* tensor, int64_t ne0, int64_t ne1, int64_t ne2) {
  return as_4d(tensor, ne0, ne1, ne2, 1);
}

ggml_tensor* GraphBuilder::as_4d(ggml_tensor* tensor, int64_t ne0, int64_t ne1, int64_t ne2,
                                 int64_t ne3) {
  if (tensor->ne[0] == ne0 && tensor->ne[1] == ne1 && tensor->ne[2] == ne2 &&
      tensor->ne[3] == ne3) {
    return tensor;
  }
  return ggml_reshape_4d(context(), tensor, ne0, ne1, ne2, ne3);
}

Result<Value> GraphBuilder::broadcast(const Value& value, const Sizes& sizes) {
  GGD_CHECK(value.rank() == sizes.size() && value.tensor->type == GGML_TYPE_F32,
            "node %s broadcasts a tensor of rank %zu to rank %zu", name(), value.rank(),
            sizes.size());
  // Neighbouring dimensions that are all repeated, or all kept, count as one.
  Sizes from;
  Sizes to;
  bool last_repeated = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t have = value.sizes[value.order[i]];
    const int64_t want = sizes[value.order[i]];
    GGD_CHECK(have == want || have == 1, "node %s broadcasts size %lld to %lld", name(),
              static_cast<long long>(have), static_cast<long long>(want));
    if (want == 1) continue;
    const bool repeated = have != want;
    if (!from.empty() && repeated == last_repeated) {
      from.back() *= have;
      to.back() *= want;
    } else {
      from.push_back(have);
      to.push_back(want);
    }
    last_repeated = repeated;
  }
  if (value.sizes == sizes) return dense(value);
  GGD_CHECK(from.size() <= 4, "node %s broadcasts in more ways than ggml has", name());
  int64_t have[4] = {1, 1, 1, 1};
  int64_t want[4] = {1, 1, 1, 1};
  for (size_t i = 0; i < from.size(); ++i) {
    have[i] = from[from.size() - 1 - i];
    want[i] = to[to.size() - 1 - i];
  }
  ggml_tensor* small = as_4d(dense(value).tensor, have[0], have[1], have[2], have[3]);
  ggml_tensor* large = ggml_repeat_4d(context(), small, want[0], want[1], want[2], want[3]);
  return make(large, sizes, value.order);
}

}  // namespace ggml_delegate
