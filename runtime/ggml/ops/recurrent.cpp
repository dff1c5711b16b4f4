// Recurrent: what steps through a sequence, one layer at a time.
#include "../kernels/recurrent.h"

#include "operands.h"

namespace ggml_delegate {
namespace {

enum Input : size_t { kGates, kWeight, kHidden, kCellState, kProjection, kBias, kInputs };

constexpr int64_t kMaxDirections = 2;

Cell cell_of(ir::RecurrentKind kind) {
  switch (kind) {
    case ir::RecurrentKind_Lstm:
      return Cell::Lstm;
    case ir::RecurrentKind_Gru:
      return Cell::Gru;
    case ir::RecurrentKind_RnnTanh:
      return Cell::Tanh;
    case ir::RecurrentKind_RnnRelu:
      break;
  }
  return Cell::Relu;
}

int64_t padded(int64_t units) { return (units + kPanelWidth - 1) / kPanelWidth * kPanelWidth; }

Error check_float(const GraphBuilder& builder, size_t i, size_t rank) {
  const Value& value = builder.input(i);
  GGD_CHECK(value.rank() == rank && value.tensor->type == GGML_TYPE_F32 && value.count() > 0,
            "input %zu of node %s has rank %zu, type %s and %lld elements, expected rank %zu, f32 "
            "and some elements",
            i, builder.name(), value.rank(), ggml_type_name(value.tensor->type),
            static_cast<long long>(value.count()), rank);
  return Error::Ok;
}

// What is read, and whether it is there, by the kind of cell.
Error check_inputs(const GraphBuilder& builder, Cell cell) {
  GGD_TRY(builder.expect_inputs(kHidden + 1, kInputs));
  GGD_TRY(check_float(builder, kGates, 3));
  GGD_TRY(check_float(builder, kWeight, 3));
  GGD_TRY(check_float(builder, kHidden, 3));
  const bool lstm = cell == Cell::Lstm;
  GGD_CHECK(builder.has_input(kCellState) == lstm && (lstm || !builder.has_input(kProjection)) &&
                (cell == Cell::Gru || !builder.has_input(kBias)),
            "node %s has inputs that its kind of cell does not take, or lacks one", builder.name());
  if (lstm) GGD_TRY(check_float(builder, kCellState, 3));
  if (builder.has_input(kProjection)) GGD_TRY(check_float(builder, kProjection, 3));
  return Error::Ok;
}

// The sizes, which all operands have to agree about.
Result<RecurrentParams> params_of(const GraphBuilder& builder, Cell cell) {
  const Sizes& gates = builder.input(kGates).sizes;
  const Sizes& hidden = builder.input(kHidden).sizes;
  RecurrentParams params;
  params.cell = cell;
  params.steps = gates[0];
  params.batch = gates[1];
  params.directions = hidden[0];
  params.outputs = hidden[2];
  params.units = cell == Cell::Lstm ? builder.input(kCellState).sizes[2] : params.outputs;
  GGD_CHECK(params.directions <= kMaxDirections && hidden[1] == params.batch &&
                (cell != Cell::Lstm || builder.input(kCellState).sizes ==
                                           Sizes{params.directions, params.batch, params.units}) &&
                (builder.has_input(kProjection) || params.units == params.outputs),
            "node %s has states that do not fit each other or %lld sequences", builder.name(),
            static_cast<long long>(params.batch));
  GGD_CHECK(gates[2] == params.directions * padded(params.units) * gate_count(cell),
            "node %s has gates of %lld elements for %lld units in %lld directions", builder.name(),
            static_cast<long long>(gates[2]), static_cast<long long>(params.units),
            static_cast<long long>(params.directions));
  return params;
}

// Adds the sources behind the gates.
Error add_sources(GraphBuilder& builder, RecurrentParams& params,
                  std::vector<ggml_tensor*>& sources) {
  const int64_t directions = params.directions;
  const int64_t width = padded(params.units) * gate_count(params.cell);
  GGD_ASSIGN(ggml_tensor* const weight,
             panels_weight(builder, kWeight, directions * width, params.outputs));
  GGD_ASSIGN(const Value hidden, builder.contiguous(builder.input(kHidden)));
  sources.push_back(weight);
  sources.push_back(hidden.tensor);
  const auto add = [&](ggml_tensor* tensor) {
    sources.push_back(tensor);
    return static_cast<int>(sources.size() - 1);
  };
  if (builder.has_input(kCellState)) {
    GGD_ASSIGN(const Value cell, builder.contiguous(builder.input(kCellState)));
    params.cell_source = add(cell.tensor);
  }
  if (builder.has_input(kProjection)) {
    GGD_ASSIGN(
        ggml_tensor* const projection,
        panels_weight(builder, kProjection, directions * padded(params.outputs), params.units));
    params.projection_source = add(projection);
  }
  GGD_ASSIGN(ggml_tensor* const bias,
             bias_or_null(builder, kBias, directions * padded(params.units)));
  if (bias != nullptr) params.bias_source = add(bias);
  return Error::Ok;
}

// The gates where they lie, if the elements of a row are neighbours; else a copy.
Result<StridedView> gates_view(GraphBuilder& builder) {
  const StridedView view = strided(builder, builder.input(kGates));
  if (view.sizes[2] == 1 || view.strides[2] == 1) return view;
  GGD_ASSIGN(const Value whole, builder.contiguous(builder.input(kGates)));
  return as_stored(whole);
}

// Part of the result: dense, in `order`, from `offset` on.
Error set_part(GraphBuilder& builder, ggml_tensor* result, size_t index, int64_t offset,
               const Sizes& sizes, const Order& order) {
  StridedView view;
  view.base = result;
  view.offset = offset;
  view.sizes = sizes;
  view.strides = sizes;
  int64_t stride = 1;
  for (size_t i = order.size(); i-- > 0;) {
    view.strides[order[i]] = stride;
    stride *= sizes[order[i]];
  }
  GGD_ASSIGN(const Value value, to_value(builder, view));
  return builder.set_output(value, index);
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Recurrent& op) {
  GGD_CHECK(op.kind() <= ir::RecurrentKind_MAX, "node %s has the unknown kind %d", builder.name(),
            static_cast<int>(op.kind()));
  const Cell cell = cell_of(op.kind());
  GGD_TRY(check_inputs(builder, cell));
  GGD_ASSIGN(RecurrentParams params, params_of(builder, cell));
  GGD_CHECK(builder.output_count() == 1 || builder.output_count() == (cell == Cell::Lstm ? 3 : 2),
            "node %s has %zu outputs", builder.name(), builder.output_count());
  GGD_ASSIGN(const StridedView gates, gates_view(builder));
  std::vector<ggml_tensor*> sources{gates.base};
  GGD_TRY(add_sources(builder, params, sources));
  params.gates_offset = gates.offset;
  params.gates_step = gates.strides[0];
  params.gates_batch = gates.strides[1];
  // The result's rows in the sequence of the gates': batches that come first stay first.
  const Order memory = memory_order(gates);
  const Order order = memory[0] == 1 ? Order{1, 0, 2} : identity_order(3);
  const Sizes sizes{params.steps, params.batch, params.directions * params.outputs};
  params.result_step = order[0] == 0 ? params.batch * sizes[2] : sizes[2];
  params.result_batch = order[0] == 0 ? sizes[2] : params.steps * sizes[2];
  const Sizes hidden{params.directions, params.batch, params.outputs};
  const Sizes last_cell{params.directions, params.batch, params.units};
  int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  if (builder.output_count() > 1) {
    params.last_hidden = ne[0];
    ne[0] += element_count(hidden);
  }
  if (builder.output_count() > 2) {
    params.last_cell = ne[0];
    ne[0] += element_count(last_cell);
  }
  ggml_tensor* result = builder.custom(recurrent_kernel, ne, std::move(sources), params);
  GGD_TRY(set_part(builder, result, 0, 0, sizes, order));
  const Order identity = identity_order(3);
  if (params.last_hidden >= 0) {
    GGD_TRY(set_part(builder, result, 1, params.last_hidden, hidden, identity));
  }
  if (params.last_cell >= 0) {
    GGD_TRY(set_part(builder, result, 2, params.last_cell, last_cell, identity));
  }
  return Error::Ok;
}

}  // namespace ggml_delegate
