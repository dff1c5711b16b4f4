#include "../kernels/reduce.h"

#include "../kernels/fold.h"
#include "../kernels/softmax.h"
#include "broadcast.h"
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

Result<Value> reducible(GraphBuilder& builder, size_t dim) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const ggml_type type = builder.input(0).tensor->type;
  GGD_CHECK(type == GGML_TYPE_F32 || type == GGML_TYPE_I32, "node %s reduces a tensor of type %s",
            builder.name(), ggml_type_name(type));
  GGD_CHECK(dim < builder.input(0).rank(), "node %s reduces dimension %zu of a tensor of rank %zu",
            builder.name(), dim, builder.input(0).rank());
  return builder.dense(builder.input(0));
}

bool gives_integers(ir::ReduceKind kind) {
  return kind == ir::ReduceKind_Any || kind == ir::ReduceKind_All ||
         kind == ir::ReduceKind_ArgMax || kind == ir::ReduceKind_ArgMin;
}

// The dense `x` reduced along `dim`, with these ne.
Result<ggml_tensor*> reduce(GraphBuilder& builder, ir::ReduceKind kind, const Value& x, size_t dim,
                            const int64_t (&ne)[4]) {
  const Surroundings surroundings = around(x, dim);
  const bool integers = x.tensor->type == GGML_TYPE_I32;
  if (!integers && (kind == ir::ReduceKind_Mean || kind == ir::ReduceKind_Sum)) {
    const ReduceParams params{surroundings.outer, x.sizes[dim], surroundings.inner,
                              kind == ir::ReduceKind_Mean};
    return builder.custom(reduce_kernel, ne, {x.tensor}, params);
  }
  const ggml_custom_op_t kernel = fold_kernel(kind, integers);
  GGD_CHECK(kernel != nullptr && x.sizes[dim] > 0, "node %s: no %s of %lld elements of type %s",
            builder.name(), ir::EnumNameReduceKind(kind), static_cast<long long>(x.sizes[dim]),
            ggml_type_name(x.tensor->type));
  const FoldParams params{surroundings.outer, x.sizes[dim], surroundings.inner};
  const ggml_type type = gives_integers(kind) ? GGML_TYPE_I32 : x.tensor->type;
  return builder.custom(kernel, ne, {x.tensor}, params, type);
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Softmax& op) {
  GGD_ASSIGN(const Value x, reducible(builder, op.dim()));
  GGD_TRY(require_float(builder, x));
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
  dense_ne(sizes, order, ne);
  GGD_ASSIGN(ggml_tensor * result, reduce(builder, op.kind(), x, dim, ne));
  return builder.set_output(builder.make(result, sizes, order));
}

Error lower(GraphBuilder& builder, const ir::CumSum& op) {
  GGD_ASSIGN(const Value x, reducible(builder, op.dim()));
  const Surroundings surroundings = around(x, op.dim());
  const FoldParams params{surroundings.outer, x.sizes[op.dim()], surroundings.inner};
  ggml_tensor* result = builder.custom(cumsum_kernel(x.tensor->type == GGML_TYPE_I32), x.tensor->ne,
                                       {x.tensor}, params, x.tensor->type);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

}  // namespace ggml_delegate
