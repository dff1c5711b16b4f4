// Index, IndexPut, Gather: elements by place.
#include "../kernels/index.h"

#include "../guard.h"
#include "../strided.h"
#include "broadcast.h"
#include "lower.h"

namespace ggml_delegate {
namespace {

// What one custom op can read besides the memory that it writes into: the tensor, its new values
// and the indices.
constexpr size_t kMaxSources = 2 + static_cast<size_t>(ir::Limit_Indices);

bool has_elements_of_four_bytes(const ggml_tensor* tensor) {
  return tensor->type == GGML_TYPE_F32 || tensor->type == GGML_TYPE_I32;
}

// Whether `values` can be written into `state` where that lies: as they are, or floats into a half
// type.
bool can_be_put_into(const ggml_tensor* values, const ggml_tensor* state) {
  return has_elements_of_four_bytes(values) &&
         values->type == (is_half(state) ? GGML_TYPE_F32 : state->type);
}

// Parameters for indexing input 0 from dimension `dim` on by the inputs from `first_index` on;
// appends these inputs, dense, to `sources`.
Result<IndexParams> index_params(GraphBuilder& builder, size_t dim, size_t first_index,
                                 std::vector<ggml_tensor*>& sources) {
  const Value& x = builder.input(0);
  const size_t indexed = builder.input_count() - first_index;
  GGD_CHECK(dim + indexed <= x.rank() && builder.input_count() <= kMaxSources,
            "node %s indexes %zu dimensions from %zu on of a tensor of rank %zu", builder.name(),
            indexed, dim, x.rank());
  const bool is_state = builder.updates_in_place() && is_half(x.tensor);
  GGD_CHECK(is_state || has_elements_of_four_bytes(x.tensor), "node %s indexes a tensor of type %s",
            builder.name(), ggml_type_name(x.tensor->type));
  IndexParams params;
  params.fault = builder.fault();
  for (size_t i = 0; i < x.rank(); ++i) {
    if (i >= dim && i < dim + indexed) {
      params.sizes.push_back(x.sizes[i]);
    } else {
      (i < dim ? params.outer : params.inner) *= x.sizes[i];
    }
  }
  for (size_t i = first_index; i < builder.input_count(); ++i) {
    GGD_ASSIGN(const Value indices, builder.contiguous(builder.input(i)));
    GGD_CHECK(
        indices.tensor->type == GGML_TYPE_I32 && indices.sizes == builder.input(first_index).sizes,
        "the indices of node %s are no integers of one shape", builder.name());
    params.count = indices.count();
    sources.push_back(indices.tensor);
  }
  return params;
}

// The sizes that indexing gives.
Sizes indexed_sizes(const GraphBuilder& builder, size_t dim, size_t first_index) {
  const Value& x = builder.input(0);
  const size_t indexed = builder.input_count() - first_index;
  Sizes sizes;
  for (size_t i = 0; i < x.rank(); ++i) {
    if (i == dim) {
      for (const int64_t size : builder.input(first_index).sizes) sizes.push_back(size);
    }
    if (i < dim || i >= dim + indexed) sizes.push_back(x.sizes[i]);
  }
  return sizes;
}

Error check_rank(const GraphBuilder& builder, size_t first_index) {
  GGD_CHECK(builder.input_count() > first_index, "node %s has no indices", builder.name());
  GGD_TRY(builder.expect_inputs(builder.input_count(), builder.input_count()));
  const size_t indexed = builder.input_count() - first_index;
  GGD_CHECK(indexed <= builder.input(0).rank() &&
                builder.input(0).rank() - indexed + builder.input(first_index).rank() <= kMaxRank,
            "node %s indexes a tensor of rank %zu by %zu tensors of rank %zu", builder.name(),
            builder.input(0).rank(), indexed, builder.input(first_index).rank());
  return Error::Ok;
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Index& op) {
  GGD_TRY(check_rank(builder, 1));
  GGD_ASSIGN(const Value x, builder.contiguous(builder.input(0)));
  std::vector<ggml_tensor*> sources{x.tensor};
  GGD_ASSIGN(const IndexParams params, index_params(builder, op.dim(), 1, sources));
  const Sizes sizes = indexed_sizes(builder, op.dim(), 1);
  GGD_CHECK(sizes == builder.out_sizes(), "node %s selects other sizes than the file declares",
            builder.name());
  const int64_t ne[4] = {element_count(sizes), 1, 1, 1};
  ggml_tensor* result = builder.custom(index_kernel, ne, sources, params, x.tensor->type);
  return builder.set_output(builder.make(result, sizes, identity_order(sizes.size())));
}

Error lower(GraphBuilder& builder, const ir::IndexPut& op) {
  GGD_TRY(check_rank(builder, 2));
  const Value& x = builder.input(0);
  // Constants may be of a half type.
  GGD_ASSIGN(const Value floats, builder.in_floats(builder.input(1)));
  GGD_ASSIGN(const Value values, builder.contiguous(floats));
  GGD_CHECK(can_be_put_into(values.tensor, x.tensor) &&
                values.sizes == indexed_sizes(builder, op.dim(), 2),
            "node %s puts values of other sizes than it indexes, or of another type",
            builder.name());
  std::vector<ggml_tensor*> sources{values.tensor};
  GGD_ASSIGN(IndexParams params, index_params(builder, op.dim(), 2, sources));
  Value target = x;
  if (builder.updates_in_place()) {
    const size_t element = ggml_type_size(x.tensor->type);
    check_memory_limit(static_cast<size_t>(values.count()) * element +
                       static_cast<size_t>(params.count) * sizeof(int64_t));
    params.overwritten =
        std::make_shared<Overwritten>(params.outer, element_count(params.sizes), params.count,
                                      params.inner * static_cast<int64_t>(element));
    builder.note_overwritten(params.overwritten);
  } else {
    GGD_ASSIGN(target, copy_to_order(builder, strided(builder, x), identity_order(x.rank())));
  }
  ggml_tensor* result = builder.custom_in_place(index_put_kernel, target.tensor, sources, params);
  return builder.set_output(builder.make(result, x.sizes, identity_order(x.rank())));
}

Error lower(GraphBuilder& builder, const ir::Gather& op) {
  GGD_TRY(builder.expect_inputs(2, 2));
  const size_t dim = op.dim();
  GGD_ASSIGN(const Value x, builder.contiguous(builder.input(0)));
  GGD_ASSIGN(const Value indices, builder.contiguous(builder.input(1)));
  GGD_CHECK(has_elements_of_four_bytes(x.tensor) && indices.tensor->type == GGML_TYPE_I32,
            "node %s gathers from a tensor of type %s by one of type %s", builder.name(),
            ggml_type_name(x.tensor->type), ggml_type_name(indices.tensor->type));
  GGD_CHECK(dim < x.rank() && indices.rank() == x.rank(),
            "node %s gathers along dimension %zu from rank %zu by rank %zu", builder.name(), dim,
            x.rank(), indices.rank());
  GatherParams params;
  params.sizes = indices.sizes;
  params.strides = x.sizes;
  params.dim = dim;
  params.size = x.sizes[dim];
  params.fault = builder.fault();
  int64_t stride = 1;
  for (size_t i = x.rank(); i-- > 0;) {
    GGD_CHECK(i == dim || indices.sizes[i] <= x.sizes[i],
              "node %s gathers %lld elements of %lld in dimension %zu", builder.name(),
              static_cast<long long>(indices.sizes[i]), static_cast<long long>(x.sizes[i]), i);
    params.strides[i] = stride;
    stride *= x.sizes[i];
  }
  GGD_CHECK(indices.count() == 0 || x.count() > 0, "node %s gathers from nothing", builder.name());
  const int64_t ne[4] = {indices.count(), 1, 1, 1};
  ggml_tensor* result =
      builder.custom(gather_kernel, ne, {x.tensor, indices.tensor}, params, x.tensor->type);
  return builder.set_output(builder.make(result, indices.sizes, identity_order(x.rank())));
}

}  // namespace ggml_delegate
