#include "operands.h"

#include <algorithm>

namespace ggml_delegate {
namespace {

// Keeps every sum and product of attributes and sizes far from overflow.
constexpr auto kMaxAttribute = static_cast<uint32_t>(ir::Limit_Attribute);

int64_t extent(const WindowAxis& axis) { return axis.dilation * (axis.kernel - 1) + 1; }

Result<WindowAxis> checked_axis(const GraphBuilder& builder, const AxisAttributes& axis) {
  for (const uint32_t size : {axis.kernel, axis.stride, axis.dilation}) {
    GGD_CHECK(size >= 1 && size <= kMaxAttribute,
              "node %s has a kernel size, stride or dilation of %u", builder.name(), size);
  }
  for (const uint32_t pad : {axis.pad_before, axis.pad_after}) {
    GGD_CHECK(pad <= kMaxAttribute, "node %s has a padding of %u", builder.name(), pad);
  }
  GGD_CHECK(axis.in >= 1 && axis.out >= 1, "node %s has a side of no elements", builder.name());
  WindowAxis window;
  window.in = axis.in;
  window.out = axis.out;
  window.kernel = axis.kernel;
  window.stride = axis.stride;
  window.dilation = axis.dilation;
  window.pad = axis.pad_before;
  return window;
}

// A constant in panels of rows [n, k] that the node has as input number i. width: elements that
// stand for those of kPanelWidth rows.
Result<ggml_tensor*> panels_of(const GraphBuilder& builder, size_t i, ggml_type type, int64_t n,
                               int64_t k, const char* what, int64_t width = kPanelWidth) {
  const Value& value = builder.input(i);
  const Sizes expected{(n + kPanelWidth - 1) / kPanelWidth, k, width};
  GGD_CHECK(value.tensor->type == type && value.sizes == expected && value.contiguous() &&
                ggml_is_contiguous(value.tensor),
            "the %s of node %s are not in panels of [%lld, %lld] of type %s", what, builder.name(),
            static_cast<long long>(n), static_cast<long long>(k), ggml_type_name(type));
  return value.tensor;
}

// As panels_of, of floats, which may be stored in fewer bits.
Result<ggml_tensor*> floats_of_groups(const GraphBuilder& builder, size_t i, int64_t n,
                                      int64_t groups, const char* what) {
  const ggml_type type = builder.input(i).tensor->type;
  const bool half = type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
  return panels_of(builder, i, half ? type : GGML_TYPE_F32, n, groups, what);
}

bool in_super_blocks(const Value& value) {
  return value.tensor->type == GGML_TYPE_I8 && value.sizes.size() == 3 &&
         value.sizes[2] == kSuperBlockBytes;
}

// As panels_of, of integers times floats.
Result<ggml_tensor*> super_blocks(const GraphBuilder& builder, size_t i, int64_t n, int64_t groups,
                                  const char* what) {
  GGD_CHECK(groups % kSuperBlockGroups == 0,
            "the %s of node %s are in super-blocks of %lld, but there are %lld of a row", what,
            builder.name(), static_cast<long long>(kSuperBlockGroups),
            static_cast<long long>(groups));
  return panels_of(builder, i, GGML_TYPE_I8, n, groups / kSuperBlockGroups, what, kSuperBlockBytes);
}

// A weight of integers with rows [n, k]: inputs number `first`, and from `numbers` on its scales,
// and zero points, minimums or none.
Result<PanelsWeight> weight_of_integers(const GraphBuilder& builder, const ir::Integers& integers,
                                        int64_t n, int64_t k, size_t first, size_t numbers) {
  PanelsWeight result;
  GGD_CHECK(integers.bits() == 8 || integers.bits() == 4,
            "node %s has a weight of %u bits, expected 8 or 4", builder.name(), integers.bits());
  GGD_CHECK(integers.group() >= 1, "node %s has groups of no elements", builder.name());
  result.integers.bits = integers.bits();
  result.integers.group = std::min<int64_t>(integers.group(), k);
  const int64_t groups = (k + result.integers.group - 1) / result.integers.group;
  const int64_t depth = integers.bits() == 8 ? k : (k + 1) / 2;
  GGD_ASSIGN(result.weight, panels_of(builder, first, GGML_TYPE_I8, n, depth, "integers"));
  GGD_CHECK(builder.has_input(numbers), "node %s has integers without scales", builder.name());
  if (in_super_blocks(builder.input(numbers))) {
    GGD_ASSIGN(result.scales, super_blocks(builder, numbers, n, groups, "scales"));
  } else if (builder.input(numbers).tensor->type == GGML_TYPE_I8) {
    GGD_ASSIGN(result.scales, panels_of(builder, numbers, GGML_TYPE_I8, n, groups,
                                        "scales of 28 bits", kFloat28Bytes));
  } else {
    GGD_ASSIGN(result.scales, floats_of_groups(builder, numbers, n, groups, "scales"));
  }
  const size_t offsets = numbers + 1;
  if (!builder.has_input(offsets)) return result;
  if (in_super_blocks(builder.input(offsets))) {
    result.integers.offsets = Offsets::Minimums;
    GGD_ASSIGN(result.offsets, super_blocks(builder, offsets, n, groups, "minimums"));
  } else if (builder.input(offsets).tensor->type == GGML_TYPE_I8) {
    result.integers.offsets = Offsets::ZeroPoints;
    GGD_ASSIGN(result.offsets, panels_of(builder, offsets, GGML_TYPE_I8, n, groups, "zero points"));
  } else {
    result.integers.offsets = Offsets::Minimums;
    GGD_ASSIGN(result.offsets, floats_of_groups(builder, offsets, n, groups, "minimums"));
  }
  return result;
}

}  // namespace

Result<Image> to_image(GraphBuilder& builder, const Value& value) {
  const size_t rank = value.rank();
  GGD_CHECK(rank == 3 || rank == 4, "node %s takes rank 3 or 4, not %zu", builder.name(), rank);
  GGD_CHECK(value.tensor->type == GGML_TYPE_F32, "node %s takes float32, not %s", builder.name(),
            ggml_type_name(value.tensor->type));
  GGD_CHECK(value.count() > 0, "node %s is given no elements", builder.name());
  GGD_ASSIGN(const Value last, builder.channels_last(value));
  Image image;
  image.tensor = last.tensor;
  image.batch = value.sizes[0];
  image.channels = value.sizes[1];
  image.height = rank == 4 ? value.sizes[2] : 1;
  image.width = value.sizes[rank - 1];
  return image;
}

Result<WindowAxis> window_axis(const GraphBuilder& builder, const AxisAttributes& axis,
                               Rounding rounding) {
  GGD_ASSIGN(const WindowAxis window, checked_axis(builder, axis));
  const int64_t room = window.in + window.pad + axis.pad_after - extent(window);
  int64_t windows = room < 0 ? 0 : room / window.stride + 1;
  if (rounding == Rounding::Up && window.out == windows + 1 &&
      windows * window.stride < window.in + window.pad) {
    ++windows;
  }
  GGD_CHECK(windows == window.out, "node %s has %lld windows over %lld elements, not %lld",
            builder.name(), static_cast<long long>(windows), static_cast<long long>(window.in),
            static_cast<long long>(window.out));
  return window;
}

Result<WindowAxis> transposed_axis(const GraphBuilder& builder, const AxisAttributes& axis) {
  GGD_ASSIGN(const WindowAxis window, checked_axis(builder, axis));
  const int64_t smallest =
      (window.out - 1) * window.stride + extent(window) - window.pad - axis.pad_after;
  GGD_CHECK(
      window.in >= smallest && window.in < smallest + std::max(window.stride, window.dilation),
      "node %s spreads %lld elements over %lld, expected %lld and the output padding",
      builder.name(), static_cast<long long>(window.out), static_cast<long long>(window.in),
      static_cast<long long>(smallest));
  return window;
}

Result<ggml_tensor*> panels_weight(const GraphBuilder& builder, size_t i, int64_t n, int64_t k) {
  const Value& weight = builder.input(i);
  const ggml_tensor* t = weight.tensor;
  GGD_CHECK(t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16,
            "the weight of node %s has type %s", builder.name(), ggml_type_name(t->type));
  const Sizes expected{(n + kPanelWidth - 1) / kPanelWidth, k, kPanelWidth};
  GGD_CHECK(weight.sizes == expected && weight.contiguous() && ggml_is_contiguous(t),
            "the weight of node %s is not in panels of [%lld, %lld]", builder.name(),
            static_cast<long long>(n), static_cast<long long>(k));
  return weight.tensor;
}

std::vector<ggml_tensor*> PanelsWeight::sources(ggml_tensor* x, ggml_tensor* bias) const {
  std::vector<ggml_tensor*> present{x, weight};
  for (ggml_tensor* each : {bias, scales, offsets}) {
    if (each != nullptr) present.push_back(each);
  }
  return present;
}

Result<PanelsWeight> panels_or_integers(const GraphBuilder& builder, const ir::Integers* integers,
                                        int64_t n, int64_t k) {
  if (integers != nullptr) return weight_of_integers(builder, *integers, n, k, 1, 3);
  PanelsWeight result;
  GGD_ASSIGN(result.weight, panels_weight(builder, 1, n, k));
  return result;
}

Result<PanelsWeight> table_of_integers(const GraphBuilder& builder, const ir::Integers& integers,
                                       int64_t n, int64_t k) {
  return weight_of_integers(builder, integers, n, k, 0, 2);
}

Result<ggml_tensor*> bias_or_null(const GraphBuilder& builder, size_t i, int64_t n) {
  if (!builder.has_input(i)) return static_cast<ggml_tensor*>(nullptr);
  const Value& bias = builder.input(i);
  GGD_CHECK(bias.sizes == Sizes{n} && bias.tensor->type == GGML_TYPE_F32 &&
                ggml_is_contiguous(bias.tensor),
            "the bias of node %s is no float32 tensor of %lld elements", builder.name(),
            static_cast<long long>(n));
  return bias.tensor;
}

ClampParams clamp_of(const GraphBuilder& builder, const ir::Activation* activation) {
  ClampParams clamp;
  clamp.precision = builder.out_precision();
  if (activation != nullptr) {
    clamp.min = activation->min();
    clamp.max = activation->max();
  }
  return clamp;
}

}  // namespace ggml_delegate
