// Pooling over channels-last images.
#include "../kernels/pool.h"

#include "operands.h"

namespace ggml_delegate {
namespace {

// Windows that follow from the sizes alone.
WindowAxis adaptive_axis(int64_t in, int64_t out) {
  WindowAxis axis;
  axis.in = in;
  axis.out = out;
  return axis;
}

// How far the last window may reach into the padding behind the input.
Error check_padding(const GraphBuilder& builder, const ir::Pool2d& op) {
  GGD_CHECK(op.pad_h() <= op.kernel_h() / 2 && op.pad_w() <= op.kernel_w() / 2,
            "node %s pads by more than half of its window", builder.name());
  return Error::Ok;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Pool2d& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  const Sizes& declared = builder.out_sizes();
  const size_t rank = input.rank();
  GGD_CHECK((rank == 3 || rank == 4) && declared.size() == rank && element_count(declared) > 0,
            "node %s pools rank %zu to rank %zu", builder.name(), rank, declared.size());
  GGD_CHECK(op.kind() <= ir::PoolKind_MAX, "node %s has an unknown kind of pooling",
            builder.name());
  const Value batched = builder.unsqueeze_to(input, 4);  // rank 3 is [c, h, w] here
  GGD_ASSIGN(const Image image, to_image(builder, batched));
  const int64_t out_h = declared[rank - 2];
  const int64_t out_w = declared[rank - 1];
  PoolParams params;
  params.adaptive = op.adaptive();
  params.windows.batch = image.batch;
  params.windows.channels = image.channels;
  if (op.adaptive()) {
    params.windows.y = adaptive_axis(image.height, out_h);
    params.windows.x = adaptive_axis(image.width, out_w);
  } else {
    GGD_TRY(check_padding(builder, op));
    GGD_ASSIGN(params.windows.y, window_axis(builder,
                                             {image.height, out_h, op.kernel_h(), op.stride_h(),
                                              op.dilation_h(), op.pad_h(), op.pad_h()},
                                             Rounding::Up));
    GGD_ASSIGN(params.windows.x, window_axis(builder,
                                             {image.width, out_w, op.kernel_w(), op.stride_w(),
                                              op.dilation_w(), op.pad_w(), op.pad_w()},
                                             Rounding::Up));
  }
  params.divisor = op.divisor();
  params.count_include_pad = op.count_include_pad();
  params.pad_after_y = op.pad_h();
  params.pad_after_x = op.pad_w();
  Sizes sizes{image.batch, image.channels, out_h, out_w};
  const int64_t ne[4] = {image.channels, out_w, out_h, image.batch};
  ggml_tensor* result =
      builder.custom(op.kind() == ir::PoolKind_Max ? max_pool_kernel : avg_pool_kernel, ne,
                     {image.tensor}, params);
  if (rank == 4) return builder.set_output(builder.make(result, sizes, channels_last_order(4)));
  return builder.set_output(builder.make(result, {image.channels, out_h, out_w}, {1, 2, 0}));
}

}  // namespace ggml_delegate
