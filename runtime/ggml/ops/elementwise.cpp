#include <algorithm>

#include "../kernels/binary.h"
#include "../strided.h"
#include "broadcast.h"
#include "lower.h"
#include "map.h"

namespace ggml_delegate {
namespace {

// Without repetitions: what has stride 0 has size 1.
StridedView stored(StridedView view) {
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.strides[i] == 0) view.sizes[i] = 1;
  }
  return view;
}

// Stride of the innermost dimension in `order` that has more than one element.
int64_t innermost_stride(const StridedView& view, const Sizes& sizes, const Order& order) {
  for (size_t i = order.size(); i-- > 0;) {
    if (sizes[order[i]] != 1) return view.strides[order[i]];
  }
  return 0;
}

// The operand as kernels read it fast in `order`: one that jumps from element to element there, but
// not in its own order, is rearranged first.
Result<StridedView> arranged(GraphBuilder& builder, const StridedView& view, const Sizes& sizes,
                             const Order& order) {
  const int64_t stride = innermost_stride(view, sizes, order);
  const StridedView small = stored(view);
  if (stride == 0 || stride == 1 || same_layout(small.sizes, memory_order(small), order)) {
    return StridedView(view);
  }
  GGD_ASSIGN(const Value copy, copy_to_order(builder, small, order));
  return with_rank(strided(builder, copy), order.size());
}

// Which operand is read as it lies in memory, and so decides the result's dim order: the larger
// one. Of equals, one that is not contiguous: that is channels-last, which most ops prefer.
bool first_leads(const StridedView& a, const StridedView& b) {
  const int64_t a_count = stored_count(a);
  const int64_t b_count = stored_count(b);
  if (a_count != b_count) return a_count > b_count;
  return !same_layout(stored(a).sizes, memory_order(a), identity_order(a.sizes.size())) ||
         same_layout(stored(b).sizes, memory_order(b), identity_order(b.sizes.size()));
}

// Whether an operand with these strides may be overwritten by the dense result: either it is read
// in the sequence in which it is written, or ggml will not take it for the result's memory.
bool allows_in_place(const ggml_tensor* operand, const ggml_tensor* result, const Sizes& sizes,
                     const Sizes& strides, int64_t offset) {
  if (!ggml_are_same_shape(operand, result)) return true;
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return offset == 0;
}

// The kernel's parameters, with dimensions that both operands walk through alike made one.
BinaryParams merge(const Sizes& sizes, const Order& order, const StridedView& a,
                   const StridedView& b) {
  BinaryParams params;
  for (const uint8_t dim : order) {
    const int64_t size = sizes[dim];
    const int64_t a_stride = a.sizes[dim] == 1 ? 0 : a.strides[dim];
    const int64_t b_stride = b.sizes[dim] == 1 ? 0 : b.strides[dim];
    if (size == 1) continue;
    if (!params.sizes.empty() && params.a_strides.back() == a_stride * size &&
        params.b_strides.back() == b_stride * size) {
      params.sizes.back() *= size;
      params.a_strides.back() = a_stride;
      params.b_strides.back() = b_stride;
    } else {
      params.sizes.push_back(size);
      params.a_strides.push_back(a_stride);
      params.b_strides.push_back(b_stride);
    }
  }
  if (params.sizes.empty()) {
    params.sizes = params.a_strides = params.b_strides = {1};
  }
  return params;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Binary& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  const ggml_custom_op_t kernel = binary_kernel(op.kind());
  GGD_CHECK(kernel != nullptr, "node %s is an unknown binary op, %d", builder.name(),
            static_cast<int>(op.kind()));
  for (size_t i = 0; i < 2; ++i) GGD_TRY(require_float(builder, builder.input(i)));
  Sizes sizes;
  GGD_CHECK(broadcast_sizes(builder.input(0).sizes, builder.input(1).sizes, &sizes) &&
                sizes == builder.out_sizes(),
            "node %s: its inputs' sizes do not broadcast to the result's", builder.name());
  StridedView a = with_rank(strided(builder, builder.input(0)), sizes.size());
  StridedView b = with_rank(strided(builder, builder.input(1)), sizes.size());
  const Order order = memory_order(first_leads(a, b) ? a : b);
  GGD_ASSIGN(a, arranged(builder, a, sizes, order));
  GGD_ASSIGN(b, arranged(builder, b, sizes, order));

  BinaryParams params = merge(sizes, order, a, b);
  params.alpha = op.kind() == ir::BinaryKind_Sub ? -op.alpha() : op.alpha();
  params.a_offset = a.offset;
  params.b_offset = b.offset;
  params.precision = builder.out_precision();
  int64_t ne[4];
  dense_ne(sizes, order, ne);
  ggml_tensor* result = builder.custom(kernel, ne, {a.base, b.base}, params);
  if (allows_in_place(a.base, result, params.sizes, params.a_strides, a.offset) &&
      allows_in_place(b.base, result, params.sizes, params.b_strides, b.offset)) {
    builder.allow_in_place(result);
  }
  return builder.set_output(builder.make(result, sizes, order, params.precision));
}

Error lower(GraphBuilder& builder, const ir::Affine& op) {
  return lower_map(builder, affine_kernel, {op.scale(), op.bias()});
}

Error lower(GraphBuilder& builder, const ir::Pow& op) {
  const float exponent = op.exponent();
  // The powers that torch computes without pow() too.
  if (exponent == 0.5F) return lower_map(builder, unary_kernel(ir::UnaryKind_Sqrt));
  if (exponent == -0.5F) return lower_map(builder, unary_kernel(ir::UnaryKind_Rsqrt));
  if (exponent == -1.0F) return lower_map(builder, unary_kernel(ir::UnaryKind_Reciprocal));
  if (exponent == 1.0F) return lower_map(builder, affine_kernel, {1.0F, 0.0F});
  if (exponent == 2.0F) return lower_map(builder, unary_kernel(ir::UnaryKind_Square));
  if (exponent == 3.0F) return lower_map(builder, unary_kernel(ir::UnaryKind_Cube));
  return lower_map(builder, pow_kernel, {exponent});
}

}  // namespace ggml_delegate
