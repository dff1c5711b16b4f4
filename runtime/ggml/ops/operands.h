// What convolutions, products and poolings expect of their operands.
#pragma once

#include "../kernels/clamp.h"
#include "../kernels/gemm.h"
#include "../kernels/window.h"
#include "../strided.h"
#include "lower.h"

namespace ggml_delegate {

// A dense channels-last float32 image; a 1d signal is an image of height 1.
struct Image {
  ggml_tensor* tensor = nullptr;
  int64_t batch = 1;
  int64_t channels = 1;
  int64_t height = 1;
  int64_t width = 1;
};

// The value [n, c, h, w] or [n, c, w] as an image; copies it when it is laid out otherwise.
Result<Image> to_image(GraphBuilder& builder, const Value& value);

// Sizes, kernel and so on of one dimension as they stand in a file.
struct AxisAttributes {
  int64_t in;
  int64_t out;
  uint32_t kernel;
  uint32_t stride;
  uint32_t dilation;
  uint32_t pad_before;
  uint32_t pad_after;
};

// How many windows a dimension must have. Up: one more is allowed that starts inside the
// input or the padding before it (torch's ceil_mode).
enum class Rounding { Down, Up };
Result<WindowAxis> window_axis(const GraphBuilder& builder, const AxisAttributes& axis,
                               Rounding rounding);

// The windows of the convolution that a transposed one undoes: `in` is the size of its result,
// `out` of its input.
Result<WindowAxis> transposed_axis(const GraphBuilder& builder, const AxisAttributes& axis);

// Input `i` as a weight in panels (see the schema) with rows [n, k].
Result<ggml_tensor*> panels_weight(const GraphBuilder& builder, size_t i, int64_t n, int64_t k);

// A product's weight, of floats or of integers with their scales, and zero points or minimums.
struct PanelsWeight {
  ggml_tensor* weight = nullptr;
  ggml_tensor* scales = nullptr;
  ggml_tensor* offsets = nullptr;
  IntegersLayout integers;

  // What a custom op reads, in the sequence that IntegersLayout expects; `bias` may be null.
  std::vector<ggml_tensor*> sources(ggml_tensor* x, ggml_tensor* bias) const;
};

// Inputs 1, 3 and 4 as such a weight with rows [n, k]; `integers` is null for one of floats.
Result<PanelsWeight> panels_or_integers(const GraphBuilder& builder, const ir::Integers* integers,
                                        int64_t n, int64_t k);

// Inputs 0, 2 and 3 as a table of integers with rows [n, k].
Result<PanelsWeight> table_of_integers(const GraphBuilder& builder, const ir::Integers& integers,
                                       int64_t n, int64_t k);

// Input `i` as a bias [n], or null when there is none.
Result<ggml_tensor*> bias_or_null(const GraphBuilder& builder, size_t i, int64_t n);

ClampParams clamp_of(const GraphBuilder& builder, const ir::Activation* activation);

}  // namespace ggml_delegate
