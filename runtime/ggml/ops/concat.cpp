// Concat: every source is copied to its place in the result, in the layout that most of it has.
#include <algorithm>
#include <vector>

#include "../kernels/strided_copy.h"
#include "../strided.h"
#include "lower.h"

namespace ggml_delegate {
namespace {

// What one custom op can read besides the memory that it writes into.
constexpr size_t kMaxSources = 8;

// The sizes of all inputs must agree but in `dim`, where they add up.
Error check_inputs(const GraphBuilder& builder, size_t dim) {
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(dim < sizes.size(), "node %s concatenates along dimension %zu of %zu", builder.name(),
            dim, sizes.size());
  int64_t total = 0;
  for (size_t i = 0; i < builder.input_count(); ++i) {
    const Value& input = builder.input(i);
    Sizes expected = sizes;
    GGD_CHECK(input.rank() == sizes.size(), "node %s concatenates rank %zu with rank %zu",
              builder.name(), input.rank(), sizes.size());
    expected[dim] = input.sizes[dim];
    total += input.sizes[dim];
    GGD_CHECK(input.sizes == expected, "input %zu of node %s has other sizes than the result", i,
              builder.name());
    GGD_CHECK(input.tensor->type == builder.input(0).tensor->type &&
                  ggml_type_size(input.tensor->type) == sizeof(uint32_t),
              "input %zu of node %s has type %s", i, builder.name(),
              ggml_type_name(input.tensor->type));
  }
  GGD_CHECK(total == sizes[dim], "node %s concatenates to %lld elements, expected %lld",
            builder.name(), static_cast<long long>(total), static_cast<long long>(sizes[dim]));
  return Error::Ok;
}

// The memory sequence of the larger part of the result's elements. An input that is laid out the
// same in both says nothing.
Order majority_order(const GraphBuilder& builder, const std::vector<StridedView>& views) {
  const Order plain = identity_order(builder.out_sizes().size());
  Order best = plain;
  int64_t best_count = 0;
  bool any_plain = false;
  for (size_t i = 0; i < views.size(); ++i) {
    const Order order = memory_order(views[i]);
    if (same_layout(views[i].sizes, order, plain)) {
      any_plain = true;
      continue;
    }
    int64_t count = 0;
    for (const StridedView& other : views) {
      if (same_layout(other.sizes, order, memory_order(other))) count += element_count(other.sizes);
    }
    if (count > best_count) {
      best = order;
      best_count = count;
    }
  }
  int64_t plain_count = 0;
  for (const StridedView& view : views) {
    if (same_layout(view.sizes, plain, memory_order(view)))
      plain_count += element_count(view.sizes);
  }
  return any_plain && plain_count > best_count ? plain : best;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Concat& op) {
  GGD_TRY(builder.expect_inputs(builder.input_count(), builder.input_count()));
  GGD_CHECK(builder.input_count() > 0, "node %s concatenates nothing", builder.name());
  const size_t dim = op.dim();
  GGD_TRY(check_inputs(builder, dim));
  const Sizes& sizes = builder.out_sizes();
  std::vector<StridedView> views;
  for (size_t i = 0; i < builder.input_count(); ++i) {
    if (builder.input(i).count() > 0) views.push_back(strided(builder, builder.input(i)));
  }
  if (views.size() <= 1) {
    GGD_ASSIGN(const Value same,
               to_value(builder, views.empty() ? strided(builder, builder.input(0)) : views[0]));
    return builder.set_output(same);
  }
  const Order order = majority_order(builder, views);
  Sizes strides = sizes;
  int64_t dense = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = dense;
    dense *= sizes[order[i]];
  }
  ggml_tensor* result = nullptr;
  int64_t place = 0;
  for (size_t first = 0; first < views.size(); first += kMaxSources) {
    StridedCopyParams params;
    std::vector<ggml_tensor*> sources;
    params.first_source = result == nullptr ? 0 : 1;
    for (size_t i = first; i < std::min(first + kMaxSources, views.size()); ++i) {
      StridedPiece piece;
      piece.from_offset = views[i].offset;
      piece.to_offset = place * strides[dim];
      for (const uint8_t d : order) {
        piece.sizes.push_back(views[i].sizes[d]);
        piece.from.push_back(views[i].strides[d]);
        piece.to.push_back(strides[d]);
      }
      place += views[i].sizes[dim];
      params.pieces.push_back(merged(piece));
      sources.push_back(views[i].base);
    }
    const int64_t ne[4] = {dense, 1, 1, 1};
    result =
        result == nullptr
            ? builder.custom(strided_copy_kernel, ne, sources, std::move(params), sources[0]->type)
            : builder.custom_in_place(strided_copy_kernel, result, sources, std::move(params));
  }
  return builder.set_output(builder.make(result, sizes, order));
}

}  // namespace ggml_delegate
