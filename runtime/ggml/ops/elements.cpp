// Compare, Integer, Where: element by element, with broadcasting, of integers and masks too.
#include "../kernels/elements.h"

#include "broadcast.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

Error require_integers(const GraphBuilder& builder, size_t input) {
  GGD_CHECK(builder.input(input).tensor->type == GGML_TYPE_I32,
            "input %zu of node %s has type %s, expected integers", input, builder.name(),
            ggml_type_name(builder.input(input).tensor->type));
  return Error::Ok;
}

Error require_same_type(const GraphBuilder& builder, size_t first, size_t second) {
  const ggml_type type = builder.input(first).tensor->type;
  GGD_CHECK((type == GGML_TYPE_F32 || type == GGML_TYPE_I32) &&
                builder.input(second).tensor->type == type,
            "inputs %zu and %zu of node %s have types %s and %s", first, second, builder.name(),
            ggml_type_name(type), ggml_type_name(builder.input(second).tensor->type));
  return Error::Ok;
}

// Neighbouring dimensions that all operands walk through alike are made one.
ElementsParams merge(const Sizes& sizes, const Order& order,
                     const std::vector<StridedView>& views) {
  ElementsParams params;
  for (size_t i = 0; i < views.size(); ++i) params.offsets[i] = views[i].offset;
  for (const uint8_t dim : order) {
    const int64_t size = sizes[dim];
    if (size == 1) continue;
    bool joins = !params.sizes.empty();
    for (size_t i = 0; joins && i < views.size(); ++i) {
      joins = params.strides[i].back() == views[i].strides[dim] * size;
    }
    if (joins) {
      params.sizes.back() *= size;
    } else {
      params.sizes.push_back(size);
    }
    for (size_t i = 0; i < views.size(); ++i) {
      if (joins) {
        params.strides[i].back() = views[i].strides[dim];
      } else {
        params.strides[i].push_back(views[i].strides[dim]);
      }
    }
  }
  if (params.sizes.empty()) {
    params.sizes = {1};
    for (size_t i = 0; i < views.size(); ++i) params.strides[i] = {0};
  }
  return params;
}

// All inputs through a kernel, in the dim order of the largest.
Error lower_elements(GraphBuilder& builder, ggml_custom_op_t kernel, ggml_type type) {
  Sizes sizes;
  for (size_t i = 0; i < builder.input_count(); ++i) {
    const Sizes before = sizes;
    GGD_CHECK(broadcast_sizes(before, builder.input(i).sizes, &sizes),
              "node %s: its inputs' sizes do not broadcast", builder.name());
  }
  GGD_CHECK(sizes == builder.out_sizes(),
            "node %s: its inputs' sizes do not broadcast to the result's", builder.name());
  std::vector<StridedView> views;
  std::vector<ggml_tensor*> sources;
  size_t leader = 0;
  for (size_t i = 0; i < builder.input_count(); ++i) {
    views.push_back(with_rank(strided(builder, builder.input(i)), sizes.size()));
    sources.push_back(views[i].base);
    if (stored_count(views[i]) > stored_count(views[leader])) leader = i;
  }
  const Order order = memory_order(views[leader]);
  int64_t ne[4];
  dense_ne(sizes, order, ne);
  ElementsParams params = merge(sizes, order, views);
  // What the program calls 64 bits must not wrap at 32.
  if (builder.out_dtype() == ir::DType_Int64) params.overflow = builder.fault();
  ggml_tensor* result = builder.custom(kernel, ne, sources, params, type);
  return builder.set_output(builder.make(result, sizes, order));
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Compare& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  GGD_TRY(require_same_type(builder, 0, 1));
  const bool integers = builder.input(0).tensor->type == GGML_TYPE_I32;
  const ggml_custom_op_t kernel = compare_kernel(op.kind(), integers);
  GGD_CHECK(kernel != nullptr, "node %s is an unknown comparison, %d", builder.name(),
            static_cast<int>(op.kind()));
  return lower_elements(builder, kernel, GGML_TYPE_I32);
}

Error lower(GraphBuilder& builder, const ir::Integer& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  for (size_t i = 0; i < 2; ++i) GGD_TRY(require_integers(builder, i));
  const ggml_custom_op_t kernel = integer_kernel(op.kind());
  GGD_CHECK(kernel != nullptr, "node %s is an unknown op of integers, %d", builder.name(),
            static_cast<int>(op.kind()));
  return lower_elements(builder, kernel, GGML_TYPE_I32);
}

Error lower(GraphBuilder& builder, const ir::Where&) {
  GGD_TRY(builder.expect_inputs(3, 3));
  GGD_TRY(require_integers(builder, 0));
  GGD_TRY(require_same_type(builder, 1, 2));
  return lower_elements(builder, where_kernel, builder.input(1).tensor->type);
}

}  // namespace ggml_delegate
