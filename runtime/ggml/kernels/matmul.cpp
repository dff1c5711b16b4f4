#include "matmul.h"

#include "split_product.h"
#include "work.h"

namespace ggml_delegate {

void linear_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const LinearParams*>(userdata);
  Gemm op;
  op.m = params.m;
  op.n = params.n;
  op.k = params.k;
  op.left.data = static_cast<const float*>(result->src[0]->data) + params.offset;
  op.left.stride = params.stride;
  op.right.type = result->src[1]->type;
  op.right.data = result->src[1]->data;
  op.result = static_cast<float*>(result->data);
  op.result_stride = params.n;
  int next = 2;
  if (params.has_bias) op.bias = static_cast<const float*>(result->src[next++]->data);
  op.right.integers = params.integers.read(result->src + next);
  op.clamp = params.clamp;
  if (params.splits) {
    next += params.integers.source_count();
    if (split_rows_times_integers(op, result->src[next]->data, ith, nth)) return;
  }
  gemm(op, ith, nth);
}

void matmul_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const MatMulParams*>(userdata);
  const float* a = static_cast<const float*>(result->src[0]->data) + params.a_offset;
  const float* b = static_cast<const float*>(result->src[1]->data) + params.b_offset;
  Gemm op;
  op.m = params.m;
  op.n = params.n;
  op.k = params.k;
  op.left.stride = params.a_stride;
  op.right.columns = params.b_columns;
  op.right.stride = params.b_stride;
  op.result_stride = params.n;
  op.bias = params.has_bias ? static_cast<const float*>(result->src[2]->data) : nullptr;
  const int64_t count = element_count(params.batch);
  // Whole matrices per thread where that shares the work out evenly.
  const bool whole = count % nth == 0 || count >= 4 * nth;
  const Range part = whole ? part_of(count, ith, nth) : Range{0, count};
  for (int64_t i = part.first; i < part.last; ++i) {
    int64_t rest = i;
    int64_t a_at = 0;
    int64_t b_at = 0;
    for (size_t dim = params.batch.size(); dim-- > 0;) {
      const int64_t at = rest % params.batch[dim];
      rest /= params.batch[dim];
      a_at += at * params.a_batch[dim];
      b_at += at * params.b_batch[dim];
    }
    op.left.data = a + a_at;
    op.right.data = b + b_at;
    op.result = static_cast<float*>(result->data) + i * params.m * params.n;
    gemm(op, whole ? 0 : ith, whole ? 1 : nth);
  }
}

}  // namespace ggml_delegate
