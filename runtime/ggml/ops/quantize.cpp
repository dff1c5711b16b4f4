#include "../kernels/fake_quantize.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

// Integers up to this size, and their differences, are exact in float32.
constexpr int32_t kMostInteger = 1 << 16;

}  // namespace

Error lower(GraphBuilder& builder, const ir::FakeQuantize& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  GGD_TRY(require_float(builder, input));
  GGD_CHECK(op.whole() || input.rank() > 0, "node %s: a number has no rows", builder.name());
  GGD_CHECK(-kMostInteger <= op.low() && op.low() < op.high() && op.high() <= kMostInteger,
            "node %s quantizes to integers from %d to %d", builder.name(), op.low(), op.high());
  GGD_CHECK(op.eps() > 0, "node %s: its least scale is %g, expected one above 0", builder.name(),
            static_cast<double>(op.eps()));
  GGD_ASSIGN(const Value x, builder.contiguous(input));
  FakeQuantizeParams params;
  const int64_t elements = element_count(x.sizes);
  params.count = op.whole() ? elements : x.sizes[x.rank() - 1];
  params.rows = params.count > 0 ? elements / params.count : 0;
  params.low = static_cast<float>(op.low());
  params.high = static_cast<float>(op.high());
  params.eps = op.eps();
  ggml_tensor* result = builder.custom(fake_quantize_kernel, x.tensor->ne, {x.tensor}, params);
  if (params.rows > 1) builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

}  // namespace ggml_delegate
