// Attention: taken whole, from queries, keys and values in whatever dim order they come.
#include "../kernels/attention.h"

#include "../strided.h"
#include "lower.h"

namespace ggml_delegate {
namespace {

constexpr size_t kRank = 4;

struct Operand {
  ggml_tensor* tensor = nullptr;
  Sizes sizes;
  HeadView view;
};

// The product may have more elements than any tensor: views that repeat take no memory.
Error check_count(const GraphBuilder& builder, const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    GGD_CHECK(!__builtin_mul_overflow(count, size, &count) && count <= kMaxElements,
              "node %s makes over %lld elements", builder.name(),
              static_cast<long long>(kMaxElements));
  }
  return Error::Ok;
}

// A view of rank 4 as the kernels read it.
Operand operand(const StridedView& view) {
  Operand result;
  result.tensor = view.base;
  result.sizes = view.sizes;
  const auto stride = [&](size_t i) { return view.sizes[i] == 1 ? 0 : view.strides[i]; };
  result.view.offset = view.offset;
  result.view.batch = stride(0);
  result.view.head = stride(1);
  result.view.row = stride(2);
  return result;
}

// Input `index` with its last dimension contiguous: a copy only if it is not. Keys and values may
// be state of a half type.
Result<Operand> factor(GraphBuilder& builder, size_t index) {
  const Value& input = builder.input(index);
  const bool fits = input.tensor->type == GGML_TYPE_F32 || (index > 0 && is_half(input.tensor));
  GGD_CHECK(input.rank() >= 2 && input.rank() <= kRank && fits,
            "input %zu of node %s has rank %zu and type %s, expected rank 2 to 4 and floats", index,
            builder.name(), input.rank(), ggml_type_name(input.tensor->type));
  Value value = builder.unsqueeze_to(input, kRank);
  StridedView view = strided(builder, value);
  if (view.sizes[kRank - 1] != 1 && view.strides[kRank - 1] != 1) {
    GGD_ASSIGN(value, builder.in_floats(value));
    GGD_ASSIGN(value, builder.contiguous(value));
    view = as_stored(value);
  }
  return operand(view);
}

// The mask, repeated by strides of 0 to [batch, heads, queries, keys].
Result<Operand> mask_operand(GraphBuilder& builder, const Sizes& sizes) {
  const Value& input = builder.input(3);
  GGD_CHECK(input.rank() <= kRank &&
                (input.tensor->type == GGML_TYPE_F32 || input.tensor->type == GGML_TYPE_I32),
            "the mask of node %s has rank %zu and type %s, expected rank 0 to 4 and f32 or i32",
            builder.name(), input.rank(), ggml_type_name(input.tensor->type));
  const Value value = builder.unsqueeze_to(input, kRank);
  StridedView view = strided(builder, value);
  for (size_t i = 0; i < kRank; ++i) {
    GGD_CHECK(value.sizes[i] == sizes[i] || value.sizes[i] == 1,
              "the mask of node %s has size %lld in dimension %zu, expected %lld or 1",
              builder.name(), static_cast<long long>(value.sizes[i]), i,
              static_cast<long long>(sizes[i]));
  }
  if (sizes[kRank - 1] != 1 && (view.sizes[kRank - 1] == 1 || view.strides[kRank - 1] != 1)) {
    if (view.sizes[kRank - 1] == 1) view.strides[kRank - 1] = 0;
    view.sizes[kRank - 1] = sizes[kRank - 1];
    GGD_TRY(check_count(builder, view.sizes));
    GGD_ASSIGN(const Value copy, copy_to_order(builder, view, identity_order(kRank)));
    view = strided(builder, copy);
  }
  return operand(view);
}

Error check_sizes(const GraphBuilder& builder, const Operand& q, const Operand& k,
                  const Operand& v) {
  const bool agree = q.sizes[0] == k.sizes[0] && k.sizes[0] == v.sizes[0] &&
                     k.sizes[1] == v.sizes[1] && k.sizes[2] == v.sizes[2] &&
                     q.sizes[3] == k.sizes[3];
  GGD_CHECK(agree && k.sizes[1] > 0 && q.sizes[1] % k.sizes[1] == 0,
            "node %s attends with sizes that do not agree", builder.name());
  GGD_CHECK(element_count(q.sizes) > 0 && element_count(k.sizes) > 0 && element_count(v.sizes) > 0,
            "node %s attends to nothing", builder.name());
  return check_count(builder, {q.sizes[0], q.sizes[1], q.sizes[2], v.sizes[3]});
}

}  // namespace

Error lower(GraphBuilder& builder, const ir::Attention& op) {
  GGD_TRY(builder.expect_inputs(3, 4));
  GGD_ASSIGN(const Operand q, factor(builder, 0));
  GGD_ASSIGN(const Operand k, factor(builder, 1));
  GGD_ASSIGN(const Operand v, factor(builder, 2));
  GGD_TRY(check_sizes(builder, q, k, v));
  AttentionParams params;
  params.batch = q.sizes[0];
  params.heads = q.sizes[1];
  params.groups = k.sizes[1];
  params.queries = q.sizes[2];
  params.keys = k.sizes[2];
  params.depth = q.sizes[3];
  params.width = v.sizes[3];
  params.scale = op.scale();
  params.causal = op.causal();
  params.q = q.view;
  params.k = k.view;
  params.v = v.view;
  std::vector<ggml_tensor*> sources{q.tensor, k.tensor, v.tensor};
  if (builder.has_input(3)) {
    GGD_ASSIGN(const Operand mask,
               mask_operand(builder, {params.batch, params.heads, params.queries, params.keys}));
    params.mask = mask.view;
    sources.push_back(mask.tensor);
  }
  // The heads of a token side by side: what merges them again is then no copy.
  params.result.row = params.heads * params.width;
  params.result.batch = params.queries * params.result.row;
  params.result.head = params.width;
  if (params.queries > kFewQueries) {
    const int64_t ne[4] = {packed_keys_count(params), 1, 1, 1};
    std::vector<ggml_tensor*> packed{k.tensor};
    if (sources.size() > 3) packed.push_back(sources[3]);
    sources[1] = builder.custom(pack_keys_kernel, ne, std::move(packed), params);
  }
  const int64_t ne[4] = {params.width, params.heads, params.queries, params.batch};
  ggml_tensor* tensor = builder.custom(attention_kernel, ne, sources, params);
  const Value whole = builder.make(
      tensor, {params.batch, params.heads, params.queries, params.width}, {0, 2, 1, 3});
  StridedView view = strided(builder, whole);
  Sizes strides;
  GGD_CHECK(element_count(builder.out_sizes()) == whole.count() &&
                reshape_strides(view, builder.out_sizes(), &strides),
            "node %s attends to other sizes than the file declares", builder.name());
  view.sizes = builder.out_sizes();
  view.strides = strides;
  GGD_ASSIGN(const Value result, to_value(builder, view));
  return builder.set_output(result);
}

}  // namespace ggml_delegate
