#include "../kernels/norm.h"

#include "../kernels/channel_norm.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

// Input `i` as a contiguous float tensor of these sizes.
Result<ggml_tensor*> parameter(GraphBuilder& builder, size_t i, const Sizes& sizes) {
  GGD_TRY(require_float(builder, builder.input(i)));
  GGD_CHECK(builder.input(i).sizes == sizes, "node %s: input %zu does not have its sizes",
            builder.name(), i);
  GGD_ASSIGN(const Value value, builder.contiguous(builder.input(i)));
  return value.tensor;
}

// Appends the weight (input 1) and the bias (input 2), those that are there.
Error add_parameters(GraphBuilder& builder, const Sizes& sizes, std::vector<ggml_tensor*>& sources,
                     bool* weight, bool* bias) {
  *weight = builder.has_input(1);
  *bias = builder.has_input(2);
  for (size_t i = 1; i <= 2; ++i) {
    if (!builder.has_input(i)) continue;
    GGD_ASSIGN(ggml_tensor * tensor, parameter(builder, i, sizes));
    sources.push_back(tensor);
  }
  return Error::Ok;
}

// Over the last `rank` dimensions, which become the innermost in memory.
Error lower_row_norm(GraphBuilder& builder, size_t rank, float eps, ggml_custom_op_t kernel) {
  GGD_TRY(builder.expect_inputs(1, 3));
  const Value& input = builder.input(0);
  GGD_TRY(require_float(builder, input));
  GGD_CHECK(rank >= 1 && rank <= input.rank(),
            "node %s normalises %zu dimensions of a tensor of rank %zu", builder.name(), rank,
            input.rank());
  const size_t first = input.rank() - rank;
  Order order;
  for (const uint8_t dim : input.order) {
    if (dim < first) order.push_back(dim);
  }
  Sizes sizes;
  for (size_t dim = first; dim < input.rank(); ++dim) {
    order.push_back(static_cast<uint8_t>(dim));
    sizes.push_back(input.sizes[dim]);
  }
  GGD_ASSIGN(const Value x, builder.in_order(input, order));
  RowNormParams params;
  params.count = element_count(sizes);
  params.eps = eps;
  std::vector<ggml_tensor*> sources{x.tensor};
  GGD_TRY(add_parameters(builder, sizes, sources, &params.weight, &params.bias));
  ggml_tensor* result = builder.custom(kernel, x.tensor->ne, sources, params);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

// The input as kernels/channel_norm.h takes it, channels innermost if that is how it lies.
Result<Value> by_channels(GraphBuilder& builder, ChannelParams* shape) {
  const Value& input = builder.input(0);
  GGD_TRY(require_float(builder, input));
  GGD_CHECK(input.rank() >= 2, "node %s has no channels: its input has rank %zu", builder.name(),
            input.rank());
  shape->samples = input.sizes[0];
  shape->channels = input.sizes[1];
  for (size_t i = 2; i < input.rank(); ++i) shape->inner *= input.sizes[i];
  shape->channels_last = same_layout(input.sizes, input.order, channels_last_order(input.rank()));
  return shape->channels_last ? builder.channels_last(input) : builder.contiguous(input);
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::LayerNorm& op) {
  return lower_row_norm(builder, op.rank(), op.eps(), layer_norm_kernel);
}

Error lower(GraphBuilder& builder, const ir::RmsNorm& op) {
  GGD_CHECK(!builder.has_input(2), "node %s: rms_norm has no bias", builder.name());
  return lower_row_norm(builder, op.rank(), op.eps(), rms_norm_kernel);
}

Error lower(GraphBuilder& builder, const ir::GroupNorm& op) {
  GGD_TRY(builder.expect_inputs(1, 3));
  GroupNormParams params;
  GGD_ASSIGN(const Value x, by_channels(builder, &params.shape));
  params.groups = op.groups();
  params.eps = op.eps();
  GGD_CHECK(params.groups > 0 && params.shape.channels % params.groups == 0,
            "node %s: %lld channels are no multiple of %lld groups", builder.name(),
            static_cast<long long>(params.shape.channels), static_cast<long long>(params.groups));
  std::vector<ggml_tensor*> sources{x.tensor};
  GGD_TRY(add_parameters(builder, {params.shape.channels}, sources, &params.weight, &params.bias));
  ggml_tensor* result = builder.custom(group_norm_kernel, x.tensor->ne, sources, params);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

Error lower(GraphBuilder& builder, const ir::ChannelAffine&) {
  GGD_TRY(builder.expect_inputs(3, 3));
  ChannelParams shape;
  GGD_ASSIGN(const Value x, by_channels(builder, &shape));
  GGD_ASSIGN(ggml_tensor * scale, parameter(builder, 1, {shape.channels}));
  GGD_ASSIGN(ggml_tensor * shift, parameter(builder, 2, {shape.channels}));
  ggml_tensor* result =
      builder.custom(channel_affine_kernel, x.tensor->ne, {x.tensor, scale, shift}, shape);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

}  // namespace ggml_delegate
