// Embedding: slices of a table by index.
#include "../kernels/gather_rows.h"
#include "lower.h"

namespace ggml_delegate {

Error lower(GraphBuilder& builder, const ir::Embedding& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  const size_t dim = op.dim();
  GGD_CHECK(dim < builder.input(0).rank(), "node %s selects in dimension %zu of %zu",
            builder.name(), dim, builder.input(0).rank());
  GGD_ASSIGN(const Value table, builder.contiguous(builder.input(0)));
  GGD_ASSIGN(const Value indices, builder.contiguous(builder.input(1)));
  const ggml_type type = table.tensor->type;
  GGD_CHECK(type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
                type == GGML_TYPE_I32,
            "node %s has a table of type %s", builder.name(), ggml_type_name(type));
  GGD_CHECK(indices.tensor->type == GGML_TYPE_I32, "node %s has indices of type %s", builder.name(),
            ggml_type_name(indices.tensor->type));
  GGD_CHECK(indices.rank() + table.rank() - 1 <= kMaxRank, "the result of node %s has rank %zu",
            builder.name(), indices.rank() + table.rank() - 1);
  Sizes sizes;
  GatherRowsParams params;
  params.rows = table.sizes[dim];
  params.wrap = op.wrap();
  params.fault = builder.fault();
  for (size_t i = 0; i < table.rank(); ++i) {
    if (i == dim) {
      for (const int64_t size : indices.sizes) sizes.push_back(size);
      continue;
    }
    sizes.push_back(table.sizes[i]);
    (i < dim ? params.matrices : params.width) *= table.sizes[i];
  }
  GGD_CHECK(sizes == builder.out_sizes(), "node %s selects other sizes than the file declares",
            builder.name());
  const int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  ggml_tensor* result =
      builder.custom(gather_rows_kernel, ne, {table.tensor, indices.tensor}, params,
                     type == GGML_TYPE_I32 ? GGML_TYPE_I32 : GGML_TYPE_F32);
  return builder.set_output(builder.make(result, sizes, identity_order(sizes.size())));
}

}  // namespace ggml_delegate
