// Convolutions: channels-last throughout, so that a pixel's channels are neighbours.
#include "../kernels/conv.h"

#include "../kernels/depthwise.h"
#include "operands.h"

namespace ggml_delegate {
namespace {

std::vector<ggml_tensor*> sources(std::initializer_list<ggml_tensor*> tensors) {
  std::vector<ggml_tensor*> present;
  for (ggml_tensor* tensor : tensors) {
    if (tensor != nullptr) present.push_back(tensor);
  }
  return present;
}

// The result [n, out, (h,) w] that the file declares, as the node's output.
struct Output {
  int64_t channels = 1;
  int64_t height = 1;
  int64_t width = 1;

  static Result<Output> declared(const GraphBuilder& builder, size_t rank, int64_t batch) {
    const Sizes& sizes = builder.out_sizes();
    GGD_CHECK(sizes.size() == rank && sizes[0] == batch && element_count(sizes) > 0,
              "node %s declares a result of another rank or batch size than its input",
              builder.name());
    Output output;
    output.channels = sizes[1];
    output.height = rank == 4 ? sizes[2] : 1;
    output.width = sizes[rank - 1];
    return output;
  }

  // The ne of its channels-last tensor.
  void ne(size_t rank, int64_t batch, int64_t (&sizes)[4]) const {
    sizes[0] = channels;
    sizes[1] = width;
    sizes[2] = rank == 4 ? height : batch;
    sizes[3] = rank == 4 ? batch : 1;
  }
};

// `tensor`: what a kernel with clamp_of() made.
Error set_image(GraphBuilder& builder, ggml_tensor* tensor) {
  const Sizes& sizes = builder.out_sizes();
  const Order order = channels_last_order(sizes.size());
  return builder.set_output(builder.make(tensor, sizes, order, builder.out_precision()));
}

template <typename Op>
Error check_signal(const GraphBuilder& builder, const Op& op, size_t rank, uint32_t padding) {
  GGD_CHECK(rank == 4 ||
                (op.kernel_h() == 1 && op.stride_h() == 1 && op.dilation_h() == 1 && padding == 0),
            "node %s has a kernel of height %u over a 1d signal", builder.name(), op.kernel_h());
  return Error::Ok;
}

Error lower_depthwise(GraphBuilder& builder, const ir::Conv2d& op, const Image& image,
                      const Windows& windows, const int64_t (&ne)[4]) {
  const int64_t out = ne[0];
  const Value& weight = builder.input(1);
  const Sizes expected{op.kernel_h(), op.kernel_w(), out};
  GGD_CHECK(out % image.channels == 0, "node %s has %lld channels for %lld inputs", builder.name(),
            static_cast<long long>(out), static_cast<long long>(image.channels));
  GGD_CHECK(weight.sizes == expected && weight.contiguous() &&
                weight.tensor->type == GGML_TYPE_F32 && ggml_is_contiguous(weight.tensor),
            "the weight of node %s is no float32 tensor [%u, %u, %lld]", builder.name(),
            op.kernel_h(), op.kernel_w(), static_cast<long long>(out));
  GGD_ASSIGN(ggml_tensor* const bias, bias_or_null(builder, 2, out));
  DepthwiseParams params;
  params.windows = windows;
  params.windows.channels = out;
  params.has_bias = bias != nullptr;
  params.clamp = clamp_of(builder, op.activation());
  ggml_tensor* x = image.tensor;
  const int64_t multiplier = out / image.channels;
  if (multiplier > 1) {
    // Output channels c * multiplier ... read input channel c: repeat it for them.
    const int64_t pixels = image.batch * image.height * image.width;
    GGD_CHECK(multiplier <= kMaxElements / (pixels * image.channels),
              "node %s repeats its input %lld times", builder.name(),
              static_cast<long long>(multiplier));
    x = builder.as_3d(x, 1, image.channels, pixels);
    x = ggml_repeat_4d(builder.context(), x, multiplier, image.channels, pixels, 1);
  }
  ggml_tensor* result =
      builder.custom(depthwise_kernel, ne, sources({x, weight.tensor, bias}), params);
  return set_image(builder, result);
}

Error lower_product(GraphBuilder& builder, const ir::Conv2d& op, const Image& image,
                    const Windows& windows, const int64_t (&ne)[4]) {
  const int64_t k = windows.y.kernel * windows.x.kernel * image.channels;
  GGD_ASSIGN(const PanelsWeight weight, panels_or_integers(builder, op.integers(), ne[0], k));
  GGD_ASSIGN(ggml_tensor* const bias, bias_or_null(builder, 2, ne[0]));
  ConvParams params;
  params.windows = windows;
  params.out_channels = ne[0];
  params.has_bias = bias != nullptr;
  params.integers = weight.integers;
  params.clamp = clamp_of(builder, op.activation());
  return set_image(builder,
                   builder.custom(conv_kernel, ne, weight.sources(image.tensor, bias), params));
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Conv2d& op) {
  GGD_TRY(builder.expect_inputs(2, 5));
  const size_t rank = builder.input(0).rank();
  GGD_ASSIGN(const Image image, to_image(builder, builder.input(0)));
  GGD_ASSIGN(const Output out, Output::declared(builder, rank, image.batch));
  GGD_TRY(check_signal(builder, op, rank, op.pad_top() + op.pad_bottom()));
  Windows windows;
  windows.batch = image.batch;
  windows.channels = image.channels;
  GGD_ASSIGN(windows.y, window_axis(builder,
                                    {image.height, out.height, op.kernel_h(), op.stride_h(),
                                     op.dilation_h(), op.pad_top(), op.pad_bottom()},
                                    Rounding::Down));
  GGD_ASSIGN(windows.x, window_axis(builder,
                                    {image.width, out.width, op.kernel_w(), op.stride_w(),
                                     op.dilation_w(), op.pad_left(), op.pad_right()},
                                    Rounding::Down));
  int64_t ne[4];
  out.ne(rank, image.batch, ne);
  switch (op.algorithm()) {
    case ir::ConvAlgorithm_Product:
      return lower_product(builder, op, image, windows, ne);
    case ir::ConvAlgorithm_Depthwise:
      return lower_depthwise(builder, op, image, windows, ne);
  }
  GGD_CHECK(false, "node %s has unknown convolution algorithm %d", builder.name(),
            static_cast<int>(op.algorithm()));
}

// The transpose of the convolution that maps the result's sizes to the input's.
Error lower(GraphBuilder& builder, const ir::ConvTranspose2d& op) {
  GGD_TRY(builder.expect_inputs(2, 3));
  const size_t rank = builder.input(0).rank();
  GGD_ASSIGN(const Image image, to_image(builder, builder.input(0)));
  GGD_ASSIGN(const Output out, Output::declared(builder, rank, image.batch));
  GGD_TRY(check_signal(builder, op, rank, op.pad_h()));
  ConvParams params;
  params.windows.batch = image.batch;
  params.windows.channels = out.channels;
  GGD_ASSIGN(params.windows.y,
             transposed_axis(builder, {out.height, image.height, op.kernel_h(), op.stride_h(),
                                       op.dilation_h(), op.pad_h(), op.pad_h()}));
  GGD_ASSIGN(params.windows.x,
             transposed_axis(builder, {out.width, image.width, op.kernel_w(), op.stride_w(),
                                       op.dilation_w(), op.pad_w(), op.pad_w()}));
  const int64_t taps = params.windows.y.kernel * params.windows.x.kernel;
  const int64_t pixels = image.batch * image.height * image.width;
  GGD_CHECK(out.channels <= kMaxElements / taps && taps * out.channels <= kMaxElements / pixels,
            "node %s spreads %lld pixels over too many elements", builder.name(),
            static_cast<long long>(pixels));
  const int64_t n = taps * out.channels;
  GGD_ASSIGN(ggml_tensor* const weight, panels_weight(builder, 1, n, image.channels));
  GGD_ASSIGN(ggml_tensor* const bias, bias_or_null(builder, 2, out.channels));
  params.out_channels = out.channels;
  params.has_bias = bias != nullptr;
  params.clamp = clamp_of(builder, op.activation());
  ConvParams product;  // a 1x1 convolution to all taps of all output channels
  product.windows.batch = pixels;
  product.windows.channels = image.channels;
  product.out_channels = n;
  const int64_t columns_ne[4] = {n, pixels, 1, 1};
  ggml_tensor* columns = builder.custom(conv_kernel, columns_ne, {image.tensor, weight}, product);
  int64_t ne[4];
  out.ne(rank, image.batch, ne);
  return set_image(builder,
                   builder.custom(conv_transpose_kernel, ne, sources({columns, bias}), params));
}

}  // namespace ggml_delegate
