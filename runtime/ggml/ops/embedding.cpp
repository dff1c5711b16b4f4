// Embedding: slices of a table by index.
#include "../kernels/gather_rows.h"
#include "lower.h"
#include "operands.h"

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
  GatherRowsParams params;
  params.wrap = op.wrap();
  params.fault = builder.fault();
  Sizes table_sizes = table.sizes;
  if (op.panel_rows() > 0) {
    GGD_CHECK(table.rank() == 3 && dim == 0 && type != GGML_TYPE_I32 &&
                  op.panel_rows() <= static_cast<uint64_t>(kMaxElements),
              "node %s selects in dimension %zu of a table in panels, of %llu rows and type %s",
              builder.name(), dim, static_cast<unsigned long long>(op.panel_rows()),
              ggml_type_name(type));
    table_sizes = {static_cast<int64_t>(op.panel_rows()), table.sizes[1]};
    params.panels = true;
    GGD_TRY(panels_weight(builder, 0, table_sizes[0], table_sizes[1]).error());
  }
  const size_t rank = indices.rank() + table_sizes.size() - 1;
  GGD_CHECK(rank <= kMaxRank, "the result of node %s has rank %zu", builder.name(), rank);
  Sizes sizes;
  params.rows = table_sizes[dim];
  for (size_t i = 0; i < table_sizes.size(); ++i) {
    if (i == dim) {
      for (const int64_t size : indices.sizes) sizes.push_back(size);
      continue;
    }
    sizes.push_back(table_sizes[i]);
    (i < dim ? params.matrices : params.width) *= table_sizes[i];
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
