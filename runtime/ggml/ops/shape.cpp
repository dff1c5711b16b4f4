// Reshape, Permute, Slice, Expand, Repeat, Copy: arithmetic on sizes and strides where possible.
#include <algorithm>
#include <vector>

#include "../kernels/cast.h"
#include "../kernels/strided_copy.h"
#include "../strided.h"
#include "lower.h"

namespace ggml_delegate {
namespace {

long long number(int64_t value) { return static_cast<long long>(value); }

}  // namespace

Error lower(GraphBuilder& builder, const ir::Reshape&) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(element_count(sizes) == input.count(), "node %s reshapes %lld elements to %lld",
            builder.name(), number(input.count()), number(element_count(sizes)));
  StridedView view = strided(builder, input);
  Sizes strides;
  if (reshape_strides(view, sizes, &strides)) {
    view.sizes = sizes;
    view.strides = strides;
    GGD_ASSIGN(const Value result, to_value(builder, view));
    return builder.set_output(result);
  }
  if (view.base != input.tensor || !ggml_is_contiguous(input.tensor) || is_half(view.base)) {
    GGD_ASSIGN(const Value copy, copy_to_order(builder, view, identity_order(input.rank())));
    return builder.set_output(builder.make(copy.tensor, sizes, identity_order(sizes.size())));
  }
  GGD_ASSIGN(const Value result, builder.reshape(input, sizes));
  return builder.set_output(result);
}

Error lower(GraphBuilder& builder, const ir::Permute& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const size_t rank = input.rank();
  Order dims;
  for (uint32_t i = 0; op.dims() != nullptr && i < op.dims()->size() && i < kMaxRank; ++i) {
    dims.push_back(static_cast<uint8_t>(std::min<uint32_t>(op.dims()->Get(i), kMaxRank)));
  }
  GGD_CHECK((op.dims() == nullptr ? 0 : op.dims()->size()) == rank && is_order(dims, rank),
            "node %s does not permute the %zu dimensions of its input", builder.name(), rank);
  Value result = input;
  for (size_t i = 0; i < rank; ++i) {
    result.sizes[i] = input.sizes[dims[i]];
    for (size_t position = 0; position < rank; ++position) {
      if (input.order[position] == dims[i]) result.order[position] = static_cast<uint8_t>(i);
    }
  }
  return builder.set_output(result);
}

Error lower(GraphBuilder& builder, const ir::Slice& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const size_t dim = op.dim();
  GGD_CHECK(dim < input.rank() && op.start() != nullptr && op.step() >= 1,
            "node %s slices dimension %zu of %zu by step %u", builder.name(), dim, input.rank(),
            op.step());
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(sizes.size() + (op.squeeze() ? 1 : 0) == input.rank(),
            "node %s slices rank %zu to rank %zu", builder.name(), input.rank(), sizes.size());
  GGD_ASSIGN(const int64_t start, builder.evaluate(*op.start()));
  const int64_t count = op.squeeze() ? 1 : sizes[dim];
  const int64_t size = input.sizes[dim];
  const int64_t step = op.step();
  GGD_CHECK(count == 0 ? start <= size : start < size && count - 1 <= (size - 1 - start) / step,
            "node %s slices %lld elements from %lld on by step %lld, there are %lld",
            builder.name(), number(count), number(start), number(step), number(size));
  const StridedView whole = strided(builder, input);
  StridedView view = whole;
  view.offset += start * whole.strides[dim];
  view.sizes.clear();
  view.strides.clear();
  for (size_t i = 0; i < input.rank(); ++i) {
    if (i == dim && op.squeeze()) continue;
    view.sizes.push_back(i == dim ? count : whole.sizes[i]);
    view.strides.push_back(i == dim && count > 1 ? whole.strides[i] * step : whole.strides[i]);
  }
  GGD_CHECK(view.sizes == sizes, "node %s slices to other sizes than the file declares",
            builder.name());
  GGD_ASSIGN(const Value result, to_value(builder, view));
  return builder.set_output(result);
}

Error lower(GraphBuilder& builder, const ir::Expand&) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(sizes.size() >= input.rank(), "node %s expands rank %zu to rank %zu", builder.name(),
            input.rank(), sizes.size());
  const size_t added = sizes.size() - input.rank();
  const StridedView source = strided(builder, input);
  StridedView view = source;
  view.sizes = sizes;
  view.strides.clear();
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t have = i < added ? 1 : source.sizes[i - added];
    GGD_CHECK(have == sizes[i] || have == 1, "node %s expands size %lld to %lld", builder.name(),
              number(have), number(sizes[i]));
    view.strides.push_back(have == sizes[i] && i >= added ? source.strides[i - added] : 0);
  }
  GGD_ASSIGN(const Value result, to_value(builder, view));
  return builder.set_output(result);
}

Error lower(GraphBuilder& builder, const ir::Repeat&) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(sizes.size() >= builder.input(0).rank(), "node %s repeats rank %zu to rank %zu",
            builder.name(), builder.input(0).rank(), sizes.size());
  const Value input = builder.unsqueeze_to(builder.input(0), sizes.size());
  GGD_CHECK(ggml_type_size(input.tensor->type) == sizeof(uint32_t),
            "node %s repeats a tensor of type %s", builder.name(),
            ggml_type_name(input.tensor->type));
  const StridedView source = strided(builder, input);
  // Each dimension in memory sequence as its repetitions, then itself.
  std::vector<int64_t> extents;
  StridedPiece piece;
  piece.from_offset = source.offset;
  for (const uint8_t dim : input.order) {
    const int64_t have = source.sizes[dim];
    GGD_CHECK(have > 0 ? sizes[dim] % have == 0 : sizes[dim] == 0,
              "node %s repeats size %lld to %lld", builder.name(), number(have),
              number(sizes[dim]));
    const int64_t times = have > 0 ? sizes[dim] / have : 0;
    if (times != 1) {
      extents.push_back(times);
      piece.sizes.push_back(times);
      piece.from.push_back(0);
    }
    if (have != 1) {
      extents.push_back(have);
      piece.sizes.push_back(have);
      piece.from.push_back(source.strides[dim]);
    }
  }
  GGD_CHECK(extents.size() <= kMaxRank, "node %s repeats in %zu ways, at most %zu are possible",
            builder.name(), extents.size(), kMaxRank);
  int64_t dense = 1;
  for (size_t i = 0; i < extents.size(); ++i) piece.to.push_back(1);
  for (size_t i = extents.size(); i-- > 0;) {
    piece.to[i] = dense;
    dense *= extents[i];
  }
  StridedCopyParams params;
  params.pieces.push_back(merged(piece));
  const int64_t ne[4] = {dense, 1, 1, 1};
  ggml_tensor* result =
      builder.custom(strided_copy_kernel, ne, {source.base}, std::move(params), source.base->type);
  return builder.set_output(builder.make(result, sizes, input.order));
}

Error lower(GraphBuilder& builder, const ir::Copy&) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const ir::DType dtype = builder.out_dtype();
  const ggml_type type = activation_type(dtype);
  const bool to_bool = dtype == ir::DType_Bool;
  if (input.tensor->type == type && !to_bool) return builder.set_output(input);
  const Value source = builder.dense(input);
  GGD_CHECK(source.tensor->type == GGML_TYPE_F32 || source.tensor->type == GGML_TYPE_I32,
            "node %s converts a tensor of type %s", builder.name(),
            ggml_type_name(source.tensor->type));
  ggml_tensor* result =
      builder.custom(cast_kernel, source.tensor->ne, {source.tensor}, CastParams{to_bool}, type);
  return builder.set_output(builder.make(result, source.sizes, source.order));
}

}  // namespace ggml_delegate
