#include <cmath>
#include <limits>

#include "../kernels/fake_quantize.h"
#include "../kernels/grid.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

// Integers up to this size, and their differences, are exact in float32.
constexpr int32_t kMostInteger = 1 << 16;

Result<GridParams> grid_params(const GraphBuilder& builder, const ir::Grid* grid) {
  GGD_CHECK(grid != nullptr, "node %s has no grid", builder.name());
  GGD_CHECK(-kMostInteger <= grid->low() && grid->low() < grid->high() &&
                grid->high() <= kMostInteger && -kMostInteger <= grid->zero_point() &&
                grid->zero_point() <= kMostInteger,
            "node %s has a grid from %d to %d with its zero at %d", builder.name(), grid->low(),
            grid->high(), grid->zero_point());
  GridParams params;
  params.scale = static_cast<float>(grid->scale());
  params.factor = static_cast<float>(1 / grid->scale());
  GGD_CHECK(params.scale > 0 && std::isfinite(params.scale) && std::isfinite(params.factor),
            "node %s has the scale %g, expected one above 0", builder.name(), grid->scale());
  params.zero_point = static_cast<float>(grid->zero_point());
  params.low = static_cast<float>(grid->low());
  params.high = static_cast<float>(grid->high());
  return params;
}

// Whether a dtype holds all integers of a grid.
bool has_room(ir::DType dtype, const ir::Grid& grid) {
  if (dtype == ir::DType_UInt8) {
    return grid.low() >= 0 && grid.high() <= std::numeric_limits<uint8_t>::max();
  }
  return dtype == ir::DType_Int8 && grid.low() >= std::numeric_limits<int8_t>::min() &&
         grid.high() <= std::numeric_limits<int8_t>::max();
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Quantize& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  GGD_TRY(require_float(builder, builder.input(0)));
  GGD_ASSIGN(const GridParams params, grid_params(builder, op.grid()));
  GGD_CHECK(has_room(builder.out_dtype(), *op.grid()),
            "node %s quantizes to %s, which does not hold %d to %d", builder.name(),
            ir::EnumNameDType(builder.out_dtype()), op.grid()->low(), op.grid()->high());
  const Value x = builder.dense(builder.input(0));
  ggml_tensor* result =
      builder.custom(quantize_kernel, x.tensor->ne, {x.tensor}, params, GGML_TYPE_I32);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

Error lower(GraphBuilder& builder, const ir::Dequantize& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  GGD_ASSIGN(const GridParams params, grid_params(builder, op.grid()));
  const Value q = builder.dense(builder.input(0));
  GGD_CHECK(q.tensor->type == GGML_TYPE_I32, "node %s dequantizes a tensor of type %s",
            builder.name(), ggml_type_name(q.tensor->type));
  ggml_tensor* result = builder.custom(dequantize_kernel, q.tensor->ne, {q.tensor}, params);
  return builder.set_output(builder.make(result, q.sizes, q.order));
}

Error lower(GraphBuilder& builder, const ir::RoundToGrid& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  GGD_TRY(require_float(builder, builder.input(0)));
  GGD_ASSIGN(const GridParams params, grid_params(builder, op.grid()));
  const Value x = builder.dense(builder.input(0));
  ggml_tensor* result = builder.custom(round_to_grid_kernel, x.tensor->ne, {x.tensor}, params);
  builder.allow_in_place(result);
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

Error lower(GraphBuilder& builder, const ir::FakeQuantize& op) {
  GGD_TRY(builder.expect_inputs(1, 1));
  const Value& input = builder.input(0);
  GGD_TRY(require_float(builder, input));
  GGD_CHECK(op.per_tensor() || input.rank() > 0, "node %s: a number has no rows", builder.name());
  GGD_CHECK(-kMostInteger <= op.low() && op.low() < op.high() && op.high() <= kMostInteger,
            "node %s quantizes to integers from %d to %d", builder.name(), op.low(), op.high());
  GGD_CHECK(op.eps() > 0, "node %s: its least scale is %g, expected one above 0", builder.name(),
            static_cast<double>(op.eps()));
  GGD_ASSIGN(const Value x, builder.contiguous(input));
  FakeQuantizeParams params;
  const int64_t elements = element_count(x.sizes);
  params.count = op.per_tensor() ? elements : x.sizes[x.rank() - 1];
  params.rows = params.count > 0 ? elements / params.count : 0;
  params.low = static_cast<float>(op.low());
  params.high = static_cast<float>(op.high());
  params.eps = op.eps();
  ggml_tensor* result = builder.custom(fake_quantize_kernel, x.tensor->ne, {x.tensor}, params);
  if (params.rows > 1) builder.allow_in_place(result);
  constexpr auto kInt8 = std::numeric_limits<int8_t>();
  if (params.rows > 0 && op.low() >= kInt8.min() && op.high() <= kInt8.max()) {
    builder.note_quantized(result, x.tensor, params);
  }
  return builder.set_output(builder.make(result, x.sizes, x.order));
}

}  // namespace ggml_delegate
