#include "lower.h"
#include "map.h"

namespace ggml_delegate {

Error require_float(const GraphBuilder& builder, const Value& value) {
  GGD_CHECK(value.tensor->type == GGML_TYPE_F32, "node %s has an input of type %s, expected f32",
            builder.name(), ggml_type_name(value.tensor->type));
  return Error::Ok;
}

Error lower_map(GraphBuilder& builder, ggml_custom_op_t kernel, MapParams params) {
  GGD_TRY(builder.expect_inputs(1, 1));
  GGD_TRY(require_float(builder, builder.input(0)));
  Value x = builder.input(0);
  // Kernels take whole rows, which may lie apart.
  if (x.tensor->nb[0] != sizeof(float)) x = builder.dense(x);
  params.precision = builder.out_precision();
  ggml_tensor* result = builder.custom(kernel, x.tensor->ne, {x.tensor}, params);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order, params.precision));
}

Error lower(GraphBuilder& builder, const ir::Unary& op) {
  const ggml_custom_op_t kernel = unary_kernel(op.kind());
  GGD_CHECK(kernel != nullptr, "node %s is an unknown unary op, %d", builder.name(),
            static_cast<int>(op.kind()));
  return lower_map(builder, kernel);
}

Error lower(GraphBuilder& builder, const ir::Clamp& op) {
  return lower_map(builder, clamp_kernel, {op.min(), op.max()});
}

Error lower(GraphBuilder& builder, const ir::LeakyRelu& op) {
  return lower_map(builder, leaky_relu_kernel, {op.negative_slope()});
}

Error lower(GraphBuilder& builder, const ir::Elu& op) {
  return lower_map(builder, elu_kernel, {op.alpha() * op.scale(), op.scale(), op.input_scale()});
}

Error lower(GraphBuilder& builder, const ir::Softplus& op) {
  return lower_map(builder, softplus_kernel, {op.beta(), op.threshold()});
}

}  // namespace ggml_delegate
