// Pad: a constant around a tensor, in whatever dim order it has.
#include "../kernels/pad.h"

#include <cmath>
#include <cstring>

#include "lower.h"

namespace ggml_delegate {
namespace {

// The value as the 4 bytes of an element.
uint32_t element_bits(float value, ggml_type type) {
  uint32_t bits = 0;
  if (type == GGML_TYPE_I32) {
    const auto integer = static_cast<int32_t>(value);
    std::memcpy(&bits, &integer, sizeof(bits));
  } else {
    std::memcpy(&bits, &value, sizeof(bits));
  }
  return bits;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Pad& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value input = builder.dense(builder.input(0));
  const size_t rank = input.rank();
  const ggml_type type = input.tensor->type;
  GGD_CHECK(type == GGML_TYPE_F32 || type == GGML_TYPE_I32, "node %s pads a tensor of type %s",
            builder.name(), ggml_type_name(type));
  GGD_CHECK(op.before() != nullptr && op.after() != nullptr && op.before()->size() == rank &&
                op.after()->size() == rank && builder.out_sizes().size() == rank,
            "node %s does not pad the %zu dimensions of its input to as many", builder.name(),
            rank);
  GGD_CHECK(type == GGML_TYPE_F32 || std::abs(op.value()) < 2147483648.0F,
            "node %s pads integers with %g", builder.name(), static_cast<double>(op.value()));
  PadParams params;
  params.fill = element_bits(op.value(), type);
  for (const uint8_t dim : input.order) {
    const int64_t before = op.before()->Get(dim);
    const int64_t after = op.after()->Get(dim);
    GGD_CHECK(input.sizes[dim] + before + after == builder.out_sizes()[dim],
              "node %s pads dimension %d to another size than the file declares", builder.name(),
              static_cast<int>(dim));
    params.add(input.sizes[dim], before, after);
  }
  const int64_t ne[4] = {element_count(builder.out_sizes()), 1, 1, 1};
  ggml_tensor* result = builder.custom(pad_kernel, ne, {input.tensor}, params, type);
  return builder.set_output(builder.make(result, builder.out_sizes(), input.order));
}

}  // namespace ggml_delegate
