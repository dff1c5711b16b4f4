// Products: rows of activations with a constant weight, or with other activations.
#include "../kernels/integer_product.h"
#include "../kernels/matmul.h"
#include "../kernels/split_product.h"

#include "operands.h"

namespace ggml_delegate {
namespace {

// Matrix rows in memory: `stride` elements apart, their elements neighbours.
struct Rows {
  ggml_tensor* base = nullptr;
  int64_t offset = 0;
  int64_t stride = 0;
};

// The view's last dimension as rows, in the sequence of `order`, when memory has them so.
bool as_rows(const StridedView& view, const Order& order, Rows* rows) {
  const size_t rank = order.size();
  const int64_t k = view.sizes[order[rank - 1]];
  if (k != 1 && view.strides[order[rank - 1]] != 1) return false;
  rows->base = view.base;
  rows->offset = view.offset;
  rows->stride = k;
  int64_t expected = -1;  // of the next dimension that has a stride
  for (size_t i = rank - 1; i-- > 0;) {
    const int64_t size = view.sizes[order[i]];
    const int64_t stride = view.strides[order[i]];
    if (size == 1) continue;
    if (expected < 0) {
      rows->stride = stride;
    } else if (stride != expected) {
      return false;
    }
    expected = stride * size;
  }
  return true;
}

// Rows of x along its last dimension; `order` is the sequence of its dimensions in memory, of
// which the last is the last. Copies what lies otherwise.
Result<Rows> input_rows(GraphBuilder& builder, const Value& x, Order* order) {
  const StridedView view = strided(builder, x);
  const size_t rank = x.rank();
  Rows rows;
  *order = memory_order(view);
  if ((*order)[rank - 1] == rank - 1 && as_rows(view, *order, &rows)) return rows;
  *order = x.order[rank - 1] == rank - 1 ? x.order : identity_order(rank);
  GGD_ASSIGN(const Value whole, builder.in_order(x, *order));
  rows.base = whole.tensor;
  rows.offset = 0;
  rows.stride = x.sizes[rank - 1];
  return rows;
}

// A dense result in `order`.
void result_ne(const Sizes& sizes, const Order& order, int64_t (&ne)[4]) {
  std::fill(std::begin(ne), std::end(ne), int64_t{1});
  const size_t rank = sizes.size();
  if (rank > 4) {
    ne[0] = element_count(sizes);
    return;
  }
  for (size_t i = 0; i < rank; ++i) ne[i] = sizes[order[rank - 1 - i]];
}

// ---- MatMul -------------------------------------------------------------------------------

// The batch dimension of a matrix operand, aligned with the result's from the right.
int64_t batch_stride(const StridedView& view, size_t result_dim, size_t result_rank) {
  const size_t missing = result_rank - view.sizes.size();
  if (result_dim < missing || view.sizes[result_dim - missing] == 1) return 0;
  return view.strides[result_dim - missing];
}

// Sizes [..., m, k] @ [..., k, n] = out, with batch dimensions of size 1 repeated.
Error check_sizes(const GraphBuilder& builder, const Sizes& a, const Sizes& b) {
  const Sizes& out = builder.out_sizes();
  const size_t rank = out.size();
  GGD_CHECK(a.size() >= 2 && b.size() >= 2 && rank == std::max(a.size(), b.size()),
            "node %s multiplies rank %zu with rank %zu to rank %zu", builder.name(), a.size(),
            b.size(), rank);
  GGD_CHECK(a[a.size() - 1] == b[b.size() - 2] && a[a.size() - 2] == out[rank - 2] &&
                b[b.size() - 1] == out[rank - 1],
            "node %s multiplies [%lld, %lld] with [%lld, %lld]", builder.name(),
            static_cast<long long>(a[a.size() - 2]), static_cast<long long>(a[a.size() - 1]),
            static_cast<long long>(b[b.size() - 2]), static_cast<long long>(b[b.size() - 1]));
  for (const Sizes& operand : {a, b}) {
    GGD_CHECK(element_count(operand) > 0, "node %s is given no elements", builder.name());
    const size_t missing = rank - operand.size();
    for (size_t i = 0; i + 2 < operand.size(); ++i) {
      GGD_CHECK(operand[i] == 1 || operand[i] == out[missing + i],
                "node %s repeats a batch of %lld to %lld", builder.name(),
                static_cast<long long>(operand[i]), static_cast<long long>(out[missing + i]));
    }
  }
  return Error::Ok;
}

// The view, or a contiguous copy of the value when neither of its last two dimensions (only the
// last one when `rows`) has neighbouring elements.
Result<StridedView> matrix_view(GraphBuilder& builder, const Value& value, bool rows) {
  const StridedView view = strided(builder, value);
  const size_t rank = value.rank();
  const bool last = view.sizes[rank - 1] == 1 || view.strides[rank - 1] == 1;
  const bool other = view.sizes[rank - 2] == 1 || view.strides[rank - 2] == 1;
  if (last || (other && !rows)) return view;
  GGD_ASSIGN(const Value whole, builder.contiguous(value));
  return as_stored(whole);
}

// Leading dimensions that both operands step through alike become rows of a when b stays.
void merge_batch_into_rows(MatMulParams& params) {
  while (!params.batch.empty()) {
    const size_t last = params.batch.size() - 1;
    const bool rows_go_on = params.m == 1 || params.a_batch[last] == params.m * params.a_stride;
    if (params.batch[last] != 1 && (params.b_batch[last] != 0 || !rows_go_on)) return;
    if (params.batch[last] != 1) {
      if (params.m == 1) params.a_stride = params.a_batch[last];
      params.m *= params.batch[last];
    }
    Sizes batch;
    Sizes a;
    Sizes b;
    for (size_t i = 0; i < last; ++i) {
      batch.push_back(params.batch[i]);
      a.push_back(params.a_batch[i]);
      b.push_back(params.b_batch[i]);
    }
    params.batch = batch;
    params.a_batch = a;
    params.b_batch = b;
  }
}

MatMulParams matmul_params(const Sizes& out, const StridedView& a, const StridedView& b) {
  const size_t rank = out.size();
  const size_t a_rank = a.sizes.size();
  const size_t b_rank = b.sizes.size();
  MatMulParams params;
  params.m = out[rank - 2];
  params.n = out[rank - 1];
  params.k = a.sizes[a_rank - 1];
  params.a_offset = a.offset;
  params.a_stride = params.m == 1 ? 0 : a.strides[a_rank - 2];
  params.b_offset = b.offset;
  const bool row_major = params.n == 1 || b.strides[b_rank - 1] == 1;
  params.b_columns = row_major ? Columns::RowMajor : Columns::Transposed;
  params.b_stride = b.strides[row_major ? b_rank - 2 : b_rank - 1];
  for (size_t i = 0; i + 2 < rank; ++i) {
    params.batch.push_back(out[i]);
    params.a_batch.push_back(batch_stride(a, i, rank));
    params.b_batch.push_back(batch_stride(b, i, rank));
  }
  merge_batch_into_rows(params);
  return params;
}

// alpha * product + beta * addend
Result<Value> add_scaled(GraphBuilder& builder, const ir::MatMul& op, const Value& product,
                         const Value& addend) {
  ggml_tensor* sum = product.tensor;
  if (op.alpha() != 1.0F) sum = ggml_scale(builder.context(), sum, op.alpha());
  const Sizes& sizes = builder.out_sizes();
  GGD_CHECK(addend.rank() <= sizes.size() && addend.tensor->type == GGML_TYPE_F32,
            "the addend of node %s has rank %zu and type %s", builder.name(), addend.rank(),
            ggml_type_name(addend.tensor->type));
  const Value aligned = builder.unsqueeze_to(addend, sizes.size());
  GGD_ASSIGN(const Value plain, builder.contiguous(aligned));
  GGD_ASSIGN(const Value whole, builder.broadcast(plain, sizes));
  ggml_tensor* scaled = whole.tensor;
  if (op.beta() != 1.0F) scaled = ggml_scale(builder.context(), scaled, op.beta());
  return builder.make(ggml_add(builder.context(), sum, scaled), sizes, product.order);
}

// The product of rows that are integers as well as the weight.
Error lower_integers(GraphBuilder& builder, const LinearParams& linear, const PanelsWeight& weight,
                     ggml_tensor* rows, ggml_tensor* bias, const ir::Linear& op) {
  IntegerLinearParams params;
  params.m = linear.m;
  params.n = linear.n;
  params.k = linear.k;
  params.has_bias = bias != nullptr;
  params.integers = weight.integers;
  params.clamp = clamp_of(builder, op.activation());
  const Sizes& sizes = builder.out_sizes();
  const Order order = identity_order(sizes.size());
  int64_t ne[4];
  result_ne(sizes, order, ne);
  ggml_tensor* result =
      builder.custom(integer_linear_kernel, ne, weight.sources(rows, bias), params);
  return builder.set_output(builder.make(result, sizes, order, params.clamp.precision));
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Linear& op) {
  GGD_TRY(builder.expect_inputs(2, 5));
  const Value& x = builder.input(0);
  const size_t rank = x.rank();
  GGD_CHECK(rank >= 1 && x.count() > 0 && x.tensor->type == GGML_TYPE_F32,
            "node %s takes a float32 tensor of rank 1 or more with elements, found rank %zu of %s",
            builder.name(), rank, ggml_type_name(x.tensor->type));
  Sizes sizes = x.sizes;
  GGD_CHECK(builder.out_sizes().size() == rank && builder.out_sizes()[rank - 1] >= 1,
            "node %s declares a result of rank %zu for an input of rank %zu", builder.name(),
            builder.out_sizes().size(), rank);
  sizes[rank - 1] = builder.out_sizes()[rank - 1];
  LinearParams params;
  params.n = sizes[rank - 1];
  params.k = x.sizes[rank - 1];
  params.m = x.count() / params.k;
  GGD_ASSIGN(const PanelsWeight weight,
             panels_or_integers(builder, op.integers(), params.n, params.k));
  GGD_ASSIGN(ggml_tensor* const bias, bias_or_null(builder, 2, params.n));
  if (multiplies_integers(weight.integers, params.k)) {
    ggml_tensor* rows = builder.quantized_rows(x, params.k, weight.integers.bits == 4);
    if (rows != nullptr) return lower_integers(builder, params, weight, rows, bias, op);
  }
  Order order;
  GGD_ASSIGN(const Rows rows, input_rows(builder, x, &order));
  params.offset = rows.offset;
  params.stride = rows.stride;
  params.has_bias = bias != nullptr;
  params.clamp = clamp_of(builder, op.activation());
  int64_t ne[4];
  result_ne(sizes, order, ne);
  params.integers = weight.integers;
  std::vector<ggml_tensor*> sources = weight.sources(rows.base, bias);
  params.splits = splits_rows(params.integers, params.m, params.n, params.k);
  if (params.splits) {
    const SplitRowsParams split{params.m, params.k, params.offset, params.stride,
                                params.integers.bits == 4};
    sources.push_back(builder.split_rows(rows.base, split));
  }
  ggml_tensor* result = builder.custom(linear_kernel, ne, std::move(sources), params);
  return builder.set_output(builder.make(result, sizes, order, params.clamp.precision));
}

Error lower(GraphBuilder& builder, const ir::MatMul& op) {
  GGD_TRY(builder.expect_inputs(2, 3));
  for (size_t i = 0; i < 2; ++i) {
    GGD_CHECK(builder.input(i).tensor->type == GGML_TYPE_F32, "input %zu of node %s has type %s", i,
              builder.name(), ggml_type_name(builder.input(i).tensor->type));
  }
  GGD_TRY(check_sizes(builder, builder.input(0).sizes, builder.input(1).sizes));
  GGD_ASSIGN(const StridedView a, matrix_view(builder, builder.input(0), true));
  GGD_ASSIGN(const StridedView b, matrix_view(builder, builder.input(1), false));
  const Sizes& sizes = builder.out_sizes();
  MatMulParams params = matmul_params(sizes, a, b);
  std::vector<ggml_tensor*> sources{a.base, b.base};
  const bool addend = builder.has_input(2);
  if (addend && op.alpha() == 1.0F && op.beta() == 1.0F && builder.input(2).rank() == 1 &&
      builder.input(2).sizes[0] == params.n && ggml_is_contiguous(builder.input(2).tensor) &&
      builder.input(2).tensor->type == GGML_TYPE_F32) {
    params.has_bias = true;
    sources.push_back(builder.input(2).tensor);
  }
  const Order order = identity_order(sizes.size());
  int64_t ne[4];
  result_ne(sizes, order, ne);
  const bool has_bias = params.has_bias;
  Value result =
      builder.make(builder.custom(matmul_kernel, ne, std::move(sources), params), sizes, order);
  if (addend && !has_bias) {
    GGD_ASSIGN(result, add_scaled(builder, op, result, builder.input(2)));
  } else if (op.alpha() != 1.0F) {
    result = builder.make(ggml_scale(builder.context(), result.tensor, op.alpha()), sizes, order);
  }
  return builder.set_output(result);
}

}  // namespace ggml_delegate
