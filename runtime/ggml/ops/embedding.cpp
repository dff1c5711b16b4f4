// Embedding: rows of a table by index.
#include "../kernels/gather_rows.h"
#include "lower.h"

namespace ggml_delegate {

Error lower(GraphBuilder& builder, const ir::Embedding& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  GGD_CHECK(builder.input(0).rank() >= 1, "node %s selects rows of a number", builder.name());
  GGD_ASSIGN(const Value weight, builder.contiguous(builder.input(0)));
  GGD_ASSIGN(const Value indices, builder.contiguous(builder.input(1)));
  const ggml_type type = weight.tensor->type;
  GGD_CHECK(type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
                type == GGML_TYPE_I32,
            "node %s has a weight of type %s", builder.name(), ggml_type_name(type));
  GGD_CHECK(indices.tensor->type == GGML_TYPE_I32, "node %s has indices of type %s", builder.name(),
            ggml_type_name(indices.tensor->type));
  GGD_CHECK(indices.rank() + weight.rank() - 1 <= kMaxRank, "the result of node %s has rank %zu",
            builder.name(), indices.rank() + weight.rank() - 1);
  Sizes sizes = indices.sizes;
  GatherRowsParams params;
  params.rows = weight.sizes[0];
  params.width = 1;
  params.wrap = op.wrap();
  params.fault = builder.fault();
  for (size_t i = 1; i < weight.rank(); ++i) {
    sizes.push_back(weight.sizes[i]);
    params.width *= weight.sizes[i];
  }
  GGD_CHECK(sizes == builder.out_sizes(), "node %s selects other sizes than the file declares",
            builder.name());
  const int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  ggml_tensor* result =
      builder.custom(gather_rows_kernel, ne, {weight.tensor, indices.tensor}, params,
                     type == GGML_TYPE_I32 ? GGML_TYPE_I32 : GGML_TYPE_F32);
  return builder.set_output(builder.make(result, sizes, identity_order(sizes.size())));
}

}  // namespace ggml_delegate
