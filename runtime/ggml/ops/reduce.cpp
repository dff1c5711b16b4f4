#include "../kernels/reduce.h"

#include "../kernels/softmax.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

// Products of the sizes that lie outside and inside of a dimension in memory.
struct Surroundings {
  int64_t outer = 1;
  int64_t inner = 1;
};

Surroundings around(const Value& value, size_t dim) {
  Surroundings result;
  bool inside = false;
  for (const uint8_t other : value.order) {
    if (other == dim) {
      inside = true;
    } else {
      (inside ? result.inner : result.outer) *= value.sizes[other];
    }
  }
  return result;
}

// A dense tensor with the physical sizes of (sizes, order) of 4 dimensions or fewer, else one row.
void result_ne(const Sizes& sizes, const Order& order, int64_t (&ne)[4]) {
  for (int64_t& n : ne) n = 1;
  if (sizes.size() > 4) {
    ne[0] = element_count(sizes);
    return;
  }
  for (size_t i = 0; i < sizes.size(); ++i) ne[i] = sizes[order[sizes.size() - 1 - i]];
}

Result<Value> reducible(GraphBuilder& builder, size_t dim) {
  GGD_TRY(builder.expect_inputs(1, 1));
  GGD_TRY(require_float(builder, builder.input(0)));
  GGD_CHECK(dim < builder.input(0).rank(), "node %s reduces dimension %zu of a tensor of rank %zu",
            builder.name(), dim, builder.input(0).rank());
  return builder.dense(builder.input(0));
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Softmax& op) {
  GGD_ASSIGN(const Value x, reducible(builder, op.dim()));
  const Surroundings surroundings = around(x, op.dim());
  const SoftmaxParams params{surroundings.outer, x.sizes[op.dim()], surroundings.inner, op.log()};
  ggml_tensor* result = builder.custom(softmax_kernel, x.tensor->ne, {x.tensor}, params);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

Error lower(GraphBuilder& builder, const ir::Reduce& op) {
  GGD_CHECK(op.kind() <= ir::ReduceKind_MAX, "node %s is an unknown reduction, %d", builder.name(),
            static_cast<int>(op.kind()));
  const size_t dim = op.dim();
  GGD_ASSIGN(const Value x, reducible(builder, dim));
  const Surroundings surroundings = around(x, dim);
  const ReduceParams params{surroundings.outer, x.sizes[dim], surroundings.inner,
                            op.kind() == ir::ReduceKind_Mean};
  Sizes sizes;
  for (size_t i = 0; i < x.rank(); ++i) {
    if (i != dim) sizes.push_back(x.sizes[i]);
    if (i == dim && op.keepdim()) sizes.push_back(1);
  }
  Order order;
  for (const uint8_t other : x.order) {
    if (other == dim && !op.keepdim()) continue;
    const bool moves = other > dim && !op.keepdim();
    order.push_back(static_cast<uint8_t>(moves ? other - 1 : other));
  }
  int64_t ne[4];
  result_ne(sizes, order, ne);
  ggml_tensor* result = builder.custom(reduce_kernel, ne, {x.tensor}, params);
  return builder.set_output(builder.make(result, sizes, order));
}

}  // namespace ggml_delegate
