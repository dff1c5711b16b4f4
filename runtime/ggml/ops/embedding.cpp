// Embedding: slices of a table by index.
#include "../kernels/gather_integers.h"
#include "../kernels/gather_rows.h"
#include "lower.h"
#include "operands.h"

namespace ggml_delegate {
namespace {

Result<Value> indices_of(GraphBuilder& builder) {
  GGD_ASSIGN(const Value indices, builder.contiguous(builder.input(1)));
  GGD_CHECK(indices.tensor->type == GGML_TYPE_I32, "node %s has indices of type %s", builder.name(),
            ggml_type_name(indices.tensor->type));
  return indices;
}

// The sizes of a result: the indices' in place of the table's dimension `dim`.
Result<Sizes> result_sizes(const GraphBuilder& builder, const Sizes& table, size_t dim,
                           const Sizes& indices) {
  const size_t rank = indices.size() + table.size() - 1;
  GGD_CHECK(rank <= kMaxRank, "the result of node %s has rank %zu", builder.name(), rank);
  Sizes sizes;
  for (size_t i = 0; i < table.size(); ++i) {
    if (i != dim) {
      sizes.push_back(table[i]);
      continue;
    }
    for (const int64_t size : indices) sizes.push_back(size);
  }
  GGD_CHECK(sizes == builder.out_sizes(), "node %s selects other sizes than the file declares",
            builder.name());
  return sizes;
}

// The sizes of a table in panels, whose rows are counted apart: the last panel may have fewer.
Result<Sizes> sizes_in_panels(const GraphBuilder& builder, const ir::Embedding& op) {
  GGD_CHECK(builder.input(0).rank() == 3 && op.dim() == 0 &&
                op.panel_rows() <= static_cast<uint64_t>(kMaxElements),
            "node %s selects in dimension %u of a table in panels, of %llu rows and rank %zu",
            builder.name(), op.dim(), static_cast<unsigned long long>(op.panel_rows()),
            builder.input(0).rank());
  return Sizes{static_cast<int64_t>(op.panel_rows()), builder.input(0).sizes[1]};
}

// Rows of a table of integers. Of 4 bits, how many elements a row has is the result's to say.
Error lower_integers(GraphBuilder& builder, const ir::Embedding& op) {
  GGD_TRY(builder.expect_inputs(2, 4));
  const Sizes& declared = builder.out_sizes();
  GGD_CHECK(
      op.panel_rows() > 0 && !declared.empty() && declared[declared.size() - 1] >= 1,
      "node %s selects from a table of integers that is not in panels, or rows of no elements",
      builder.name());
  GGD_ASSIGN(const Sizes in_panels, sizes_in_panels(builder, op));
  const Sizes table{in_panels[0], declared[declared.size() - 1]};
  GatherIntegersParams params;
  params.rows = table[0];
  params.width = table[1];
  params.wrap = op.wrap();
  params.fault = builder.fault();
  GGD_ASSIGN(const PanelsWeight weight,
             table_of_integers(builder, *op.integers(), params.rows, params.width));
  params.integers = weight.integers;
  GGD_ASSIGN(const Value indices, indices_of(builder));
  GGD_ASSIGN(const Sizes sizes, result_sizes(builder, table, 0, indices.sizes));
  const int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  ggml_tensor* result =
      builder.custom(gather_integers_kernel, ne, weight.sources(indices.tensor, nullptr), params);
  return builder.set_output(builder.make(result, sizes, identity_order(sizes.size())));
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Embedding& op) {
  if (op.integers() != nullptr) return lower_integers(builder, op);
  GGD_TRY(builder.expect_inputs(2, 2));
  const size_t dim = op.dim();
  GGD_CHECK(dim < builder.input(0).rank(), "node %s selects in dimension %zu of %zu",
            builder.name(), dim, builder.input(0).rank());
  GGD_ASSIGN(const Value table, builder.contiguous(builder.input(0)));
  GGD_ASSIGN(const Value indices, indices_of(builder));
  const ggml_type type = table.tensor->type;
  GGD_CHECK(type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
                type == GGML_TYPE_I32,
            "node %s has a table of type %s", builder.name(), ggml_type_name(type));
  GatherRowsParams params;
  params.wrap = op.wrap();
  params.fault = builder.fault();
  Sizes table_sizes = table.sizes;
  if (op.panel_rows() > 0) {
    GGD_CHECK(type != GGML_TYPE_I32, "node %s has a table of type %s in panels", builder.name(),
              ggml_type_name(type));
    GGD_ASSIGN(table_sizes, sizes_in_panels(builder, op));
    params.panels = true;
    GGD_TRY(panels_weight(builder, 0, table_sizes[0], table_sizes[1]).error());
  }
  GGD_ASSIGN(const Sizes sizes, result_sizes(builder, table_sizes, dim, indices.sizes));
  params.rows = table_sizes[dim];
  for (size_t i = 0; i < table_sizes.size(); ++i) {
    if (i != dim) (i < dim ? params.matrices : params.width) *= table_sizes[i];
  }
  const int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  ggml_tensor* result =
      builder.custom(gather_rows_kernel, ne, {table.tensor, indices.tensor}, params,
                     type == GGML_TYPE_I32 ? GGML_TYPE_I32 : GGML_TYPE_F32);
  return builder.set_output(builder.make(result, sizes, identity_order(sizes.size())));
}

}  // namespace ggml_delegate
