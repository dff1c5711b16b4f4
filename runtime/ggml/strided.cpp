#include "strided.h"

#include "graph.h"
#include "kernels/strided_copy.h"

namespace ggml_delegate {
namespace {

// Whether the view's elements lie without gaps in the sequence of `order`.
bool is_dense(const StridedView& view, const Order& order) {
  int64_t expected = 1;
  for (size_t i = order.size(); i-- > 0;) {
    const int64_t size = view.sizes[order[i]];
    if (size == 1) continue;
    if (view.strides[order[i]] != expected) return false;
    expected *= size;
  }
  return true;
}

bool has_repeats(const StridedView& view) {
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.sizes[i] != 1 && view.strides[i] == 0) return true;
  }
  return false;
}

// A ggml view, where value.h allows a strided tensor and ggml can say it; else null.
ggml_tensor* ggml_strided(const GraphBuilder& builder, const StridedView& view,
                          const Order& order) {
  const size_t rank = order.size();
  if (rank > 4 || has_repeats(view)) return nullptr;
  const size_t element = ggml_type_size(view.base->type);
  int64_t ne[4] = {1, 1, 1, 1};
  size_t nb[4] = {element, element, element, element};
  for (size_t axis = 0; axis < 4; ++axis) {
    if (axis > 0) nb[axis] = nb[axis - 1] * static_cast<size_t>(ne[axis - 1]);
    if (axis >= rank) continue;
    const uint8_t dim = order[rank - 1 - axis];
    ne[axis] = view.sizes[dim];
    if (ne[axis] != 1) nb[axis] = static_cast<size_t>(view.strides[dim]) * element;
  }
  if (nb[0] != element) return nullptr;
  return ggml_view_4d(builder.context(), view.base, ne[0], ne[1], ne[2], ne[3], nb[1], nb[2], nb[3],
                      static_cast<size_t>(view.offset) * element);
}

}  // namespace

StridedView strided(const GraphBuilder& builder, const Value& value) {
  StridedView view;
  return builder.deferred(value, &view) ? view : as_stored(value);
}

StridedView as_stored(const Value& value) {
  StridedView view;
  view.base = value.tensor;
  view.sizes = value.sizes;
  const size_t rank = value.rank();
  for (size_t i = 0; i < rank; ++i) view.strides.push_back(1);
  int64_t dense = 1;
  for (size_t axis = 0; axis < rank; ++axis) {
    const uint8_t dim = value.order[rank - 1 - axis];
    view.strides[dim] =
        rank > 4
            ? dense
            : static_cast<int64_t>(value.tensor->nb[axis] / ggml_type_size(value.tensor->type));
    dense *= value.sizes[dim];
  }
  return view;
}

Order memory_order(const StridedView& view) {
  const size_t rank = view.sizes.size();
  RankVector<uint8_t> placed;
  for (size_t dim = 0; dim < rank; ++dim) {
    const bool fixed = view.sizes[dim] != 1 && view.strides[dim] != 0;
    size_t position = 0;
    for (size_t i = 0; i < placed.size(); ++i) {
      const uint8_t other = placed[i];
      const bool other_fixed = view.sizes[other] != 1 && view.strides[other] != 0;
      const bool after = fixed ? other_fixed && view.strides[other] >= view.strides[dim]
                               : other + size_t{1} == dim;
      if (after) position = i + 1;
    }
    // Those that follow the dimension before, or lead, stay where they are.
    while (fixed && position < placed.size() &&
           (view.sizes[placed[position]] == 1 || view.strides[placed[position]] == 0)) {
      ++position;
    }
    placed.push_back(0);
    for (size_t i = placed.size() - 1; i > position; --i) placed[i] = placed[i - 1];
    placed[position] = static_cast<uint8_t>(dim);
  }
  return placed;
}

bool reshape_strides(const StridedView& view, const Sizes& sizes, Sizes* strides) {
  strides->clear();
  for (size_t i = 0; i < sizes.size(); ++i) strides->push_back(1);
  size_t source = view.sizes.size();
  int64_t left = 1;    // elements of the current run of source dimensions not yet given out
  int64_t stride = 1;  // of the next dimension to take from the run
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 1) continue;
    while (left == 1) {
      if (source == 0) return false;
      --source;
      left = view.sizes[source];
      stride = view.strides[source];
      if (left == 1) continue;
      // Further dimensions join the run while they continue it in memory.
      int64_t extent = left * stride;
      while (source > 0 && (view.sizes[source - 1] == 1 || view.strides[source - 1] == extent)) {
        --source;
        left *= view.sizes[source];
        extent *= view.sizes[source];
      }
    }
    if (sizes[i] == 0 || left % sizes[i] != 0) return false;
    (*strides)[i] = stride;
    stride *= sizes[i];
    left /= sizes[i];
  }
  return left == 1;
}

Result<Value> copy_to_order(GraphBuilder& builder, const StridedView& stored, const Order& order) {
  GGD_ASSIGN(const StridedView view, builder.in_floats(stored));
  GGD_CHECK(ggml_type_size(view.base->type) == sizeof(uint32_t),
            "node %s needs a copy of a tensor of type %s", builder.name(),
            ggml_type_name(view.base->type));
  StridedCopyParams params;
  StridedPiece piece;
  piece.from_offset = view.offset;
  int64_t dense = 1;
  for (size_t i = 0; i < order.size(); ++i) {
    piece.sizes.push_back(view.sizes[order[i]]);
    piece.from.push_back(view.strides[order[i]]);
    piece.to.push_back(1);
  }
  for (size_t i = order.size(); i-- > 0;) {
    piece.to[i] = dense;
    dense *= piece.sizes[i];
  }
  params.pieces.push_back(merged(piece));
  const int64_t ne[4] = {dense, 1, 1, 1};
  ggml_tensor* copy =
      builder.custom(strided_copy_kernel, ne, {view.base}, std::move(params), view.base->type);
  return builder.make(copy, view.sizes, order);
}

Result<Value> to_value(GraphBuilder& builder, const StridedView& view) {
  const Order order = memory_order(view);
  const int64_t count = element_count(view.sizes);
  if (!has_repeats(view) && is_dense(view, order)) {
    if (view.offset == 0 && count == ggml_nelements(view.base) && ggml_is_contiguous(view.base)) {
      return builder.make(view.base, view.sizes, order);
    }
    const size_t offset = static_cast<size_t>(view.offset) * ggml_type_size(view.base->type);
    ggml_tensor* part = ggml_view_1d(builder.context(), view.base, count, offset);
    return builder.make(part, view.sizes, order);
  }
  if (ggml_tensor* tensor = ggml_strided(builder, view, order)) {
    Value value;
    value.tensor = tensor;
    value.sizes = view.sizes;
    value.order = order;
    return value;
  }
  GGD_ASSIGN(const Value copy, copy_to_order(builder, view, order));
  builder.defer(copy, view);
  return copy;
}

}  // namespace ggml_delegate
