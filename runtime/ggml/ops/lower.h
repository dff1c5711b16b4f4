// One overload per op of the schema; each sets the output of the builder's current node.
#pragma once

#include "../graph.h"

namespace ggml_delegate {

// Declares lower() for an op; a missing definition does not link, a missing declaration does not
// compile (see GraphBuilder::lower_op).
#define GGD_DECLARE_LOWER(Op) Error lower(GraphBuilder& builder, const ir::Op& op);
#define GGD_FOR_EACH_OP(F) \
  F(Conv2d)                \
  F(ConvTranspose2d)       \
  F(Linear)                \
  F(MatMul)                \
  F(Binary)                \
  F(Affine)                \
  F(Unary)                 \
  F(Clamp)                 \
  F(LeakyRelu)             \
  F(Elu)                   \
  F(Softplus)              \
  F(Pow)                   \
  F(Softmax)               \
  F(Reduce)                \
  F(LayerNorm)             \
  F(RmsNorm)               \
  F(GroupNorm)             \
  F(ChannelAffine)         \
  F(Pool2d)                \
  F(Attention)             \
  F(Reshape)               \
  F(Permute)               \
  F(Slice)                 \
  F(Concat)                \
  F(Expand)                \
  F(Repeat)                \
  F(Pad)                   \
  F(Copy)                  \
  F(Embedding)             \
  F(Compare)               \
  F(Integer)               \
  F(Where)                 \
  F(CumSum)                \
  F(Index)                 \
  F(IndexPut)              \
  F(Gather)                \
  F(Resize2d)              \
  F(Recurrent)             \
  F(FakeQuantize)          \
  F(Quantize)              \
  F(Dequantize)            \
  F(RoundToGrid)

GGD_FOR_EACH_OP(GGD_DECLARE_LOWER)
#undef GGD_DECLARE_LOWER

}  // namespace ggml_delegate
