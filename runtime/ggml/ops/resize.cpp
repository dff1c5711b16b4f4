// Resize2d over channels-last images.
#include "../kernels/resize.h"

#include <cmath>

#include "operands.h"

namespace ggml_delegate {
namespace {

Result<ResizeAxis> resize_axis(const GraphBuilder& builder, const ir::Resize2d& op, int64_t in,
                               int64_t out, float step) {
  GGD_CHECK(in >= 1 && out >= 1, "node %s resizes %lld elements to %lld", builder.name(),
            static_cast<long long>(in), static_cast<long long>(out));
  GGD_CHECK(std::isfinite(step) && step >= 0, "node %s resizes in steps of %g", builder.name(),
            static_cast<double>(step));
  ResizeAxis axis;
  axis.in = in;
  axis.out = out;
  if (op.kind() == ir::ResizeKind_Bilinear && op.align_corners()) {
    axis.step = out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0F;
  } else {
    axis.step = step > 0 ? step : static_cast<float>(in) / static_cast<float>(out);
  }
  return axis;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Resize2d& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(builder.input(0).rank() == 4 && sizes.size() == 4,
            "node %s resizes rank %zu to rank %zu", builder.name(), builder.input(0).rank(),
            sizes.size());
  GGD_CHECK(op.kind() <= ir::ResizeKind_MAX, "node %s is an unknown way to resize, %d",
            builder.name(), static_cast<int>(op.kind()));
  GGD_ASSIGN(const Image image, to_image(builder, builder.input(0)));
  ResizeParams params;
  params.batch = image.batch;
  params.channels = image.channels;
  params.align_corners = op.align_corners();
  GGD_ASSIGN(params.y, resize_axis(builder, op, image.height, sizes[2], op.step_h()));
  GGD_ASSIGN(params.x, resize_axis(builder, op, image.width, sizes[3], op.step_w()));
  const int64_t ne[4] = {image.channels, sizes[3], sizes[2], image.batch};
  ggml_tensor* result = builder.custom(
      op.kind() == ir::ResizeKind_Nearest ? resize_nearest_kernel : resize_bilinear_kernel, ne,
      {image.tensor}, params);
  return builder.set_output(builder.make(result, {image.batch, image.channels, sizes[2], sizes[3]},
                                         channels_last_order(4)));
}

}  // namespace ggml_delegate
