#include "verify.h"

#include <cstdint>
#include <vector>

#include "program.h"

namespace ggml_delegate {
namespace {

constexpr size_t kMaxTensors = size_t{1} << 20;
constexpr size_t kMaxNodes = size_t{1} << 18;
constexpr size_t kMaxSymbols = 256;
constexpr size_t kMaxExprTokens = 256;
constexpr size_t kMaxRecurrentOutputs = 3;
constexpr int64_t kMaxSymbolValue = int64_t{1} << 32;

template <typename Vector>
size_t length(const Vector* vector) {
  return vector == nullptr ? 0 : vector->size();
}

// FlatBuffers' verifier does not look at the alignment of structs in vectors.
template <typename Struct>
bool aligned(const flatbuffers::Vector<const Struct*>* structs) {
  return structs == nullptr || reinterpret_cast<uintptr_t>(structs->Data()) % alignof(Struct) == 0;
}

// A postfix expression must leave one value and never take from an empty stack.
Error verify_expr(const ir::Expr* expr, size_t index, size_t symbols) {
  GGD_CHECK(expr != nullptr && length(expr->tokens()) > 0, "expression %zu is empty", index);
  GGD_CHECK(aligned(expr->tokens()), "expression %zu is misaligned", index);
  GGD_CHECK(length(expr->tokens()) <= kMaxExprTokens, "expression %zu is too long", index);
  size_t depth = 0;
  for (const ir::ExprToken* token : *expr->tokens()) {
    GGD_CHECK(token->op() <= ir::ExprOp_MAX, "expression %zu has an unknown operator", index);
    if (token->op() == ir::ExprOp_Const) {
      ++depth;
    } else if (token->op() == ir::ExprOp_Symbol) {
      GGD_CHECK(token->value() >= 0 && static_cast<size_t>(token->value()) < symbols,
                "expression %zu names symbol %lld of %zu", index,
                static_cast<long long>(token->value()), symbols);
      ++depth;
    } else {
      GGD_CHECK(depth >= 2, "expression %zu lacks an operand", index);
      --depth;
    }
  }
  GGD_CHECK(depth == 1, "expression %zu leaves %zu values, expected 1", index, depth);
  return Error::Ok;
}

Error verify_dim(const ir::Dim* dim, size_t tensor, size_t exprs) {
  GGD_CHECK(dim->value() >= 0 && dim->value() <= kMaxElements, "tensor %zu has size %lld", tensor,
            static_cast<long long>(dim->value()));
  GGD_CHECK(dim->expr() < 0 || static_cast<size_t>(dim->expr()) < exprs,
            "tensor %zu names expression %d of %zu", tensor, dim->expr(), exprs);
  return Error::Ok;
}

Error verify_tensor(const ir::Tensor* tensor, size_t index, size_t exprs) {
  GGD_CHECK(tensor != nullptr, "tensor %zu is missing", index);
  GGD_CHECK(tensor->dtype() <= ir::DType_MAX, "tensor %zu has unknown dtype %d", index,
            static_cast<int>(tensor->dtype()));
  GGD_CHECK(aligned(tensor->dims()), "the sizes of tensor %zu are misaligned", index);
  const size_t rank = length(tensor->dims());
  GGD_CHECK(rank <= kMaxRank, "tensor %zu has rank %zu, at most %zu is possible", index, rank,
            kMaxRank);
  for (size_t i = 0; i < rank; ++i) {
    GGD_TRY(verify_dim(tensor->dims()->Get(static_cast<uint32_t>(i)), index, exprs));
    GGD_CHECK(!is_constant(*tensor) || tensor->dims()->Get(static_cast<uint32_t>(i))->expr() < 0,
              "constant tensor %zu has a dynamic size", index);
  }
  if (length(tensor->dim_order()) > 0) {
    Order order;
    for (const uint8_t dim : *tensor->dim_order()) order.push_back(dim);
    GGD_CHECK(tensor->dim_order()->size() == rank && is_order(order, rank),
              "tensor %zu has an invalid dim order", index);
  }
  GGD_CHECK(!tensor->is_scalar() || (rank == 0 && !is_constant(*tensor)),
            "scalar %zu has a rank or data", index);
  return Error::Ok;
}

Error verify_symbols(const ir::Program& program) {
  const size_t symbols = length(program.symbols());
  GGD_CHECK(symbols <= kMaxSymbols, "%zu symbols, at most %zu are possible", symbols, kMaxSymbols);
  for (size_t i = 0; i < symbols; ++i) {
    const ir::Symbol* symbol = program.symbols()->Get(static_cast<uint32_t>(i));
    GGD_CHECK(symbol != nullptr && symbol->min() >= 0 && symbol->min() <= symbol->max() &&
                  symbol->max() <= kMaxSymbolValue,
              "symbol %zu has invalid bounds", i);
  }
  GGD_CHECK(aligned(program.bindings()), "the bindings are misaligned");
  std::vector<bool> bound(symbols, false);
  for (size_t i = 0; i < length(program.bindings()); ++i) {
    const ir::Binding* binding = program.bindings()->Get(static_cast<uint32_t>(i));
    GGD_CHECK(binding->symbol() < symbols && !bound[binding->symbol()] &&
                  binding->input() < length(program.inputs()) && binding->scale() > 0 &&
                  binding->scale() <= kMaxSymbolValue && binding->offset() <= kMaxSymbolValue &&
                  binding->offset() >= -kMaxSymbolValue,
              "binding %zu is invalid", i);
    const ir::Tensor* input = program.tensors()->Get(program.inputs()->Get(binding->input()));
    GGD_CHECK(binding->dim() < 0 ? input->is_scalar()
                                 : static_cast<size_t>(binding->dim()) < length(input->dims()),
              "binding %zu names a dimension that its input lacks", i);
    bound[binding->symbol()] = true;
  }
  for (size_t i = 0; i < symbols; ++i) {
    GGD_CHECK(bound[i], "symbol %zu is bound by no input", i);
  }
  return Error::Ok;
}

// Walks inputs and nodes in order: each tensor is written once, before it is read.
class DataflowCheck {
 public:
  explicit DataflowCheck(const ir::Program& program)
      : program_(program), defined_(program.tensors()->size(), false) {
    for (size_t i = 0; i < defined_.size(); ++i) {
      defined_[i] = is_constant(*program.tensors()->Get(static_cast<uint32_t>(i)));
    }
  }

  Error run() {
    for (size_t i = 0; i < length(program_.inputs()); ++i) {
      GGD_TRY(define(program_.inputs()->Get(static_cast<uint32_t>(i)), "input", i));
    }
    for (size_t i = 0; i < length(program_.nodes()); ++i) {
      GGD_TRY(node(program_.nodes()->Get(static_cast<uint32_t>(i)), i));
    }
    for (size_t i = 0; i < length(program_.outputs()); ++i) {
      const uint32_t tensor = program_.outputs()->Get(static_cast<uint32_t>(i));
      GGD_CHECK(tensor < defined_.size() && defined_[tensor],
                "output %zu is tensor %u, which nothing computes", i, tensor);
      GGD_TRY(check_no_scalar(tensor, "output", i));
    }
    return Error::Ok;
  }

 private:
  Error define(uint32_t tensor, const char* what, size_t index) {
    GGD_CHECK(tensor < defined_.size(), "%s %zu is tensor %u of %zu", what, index, tensor,
              defined_.size());
    GGD_CHECK(!defined_[tensor], "%s %zu is tensor %u, which is defined already", what, index,
              tensor);
    defined_[tensor] = true;
    return Error::Ok;
  }

  Error check_no_scalar(uint32_t tensor, const char* what, size_t index) const {
    GGD_CHECK(!program_.tensors()->Get(tensor)->is_scalar(), "%s %zu is scalar %u", what, index,
              tensor);
    return Error::Ok;
  }

  Error node(const ir::Node* node, size_t index) {
    GGD_CHECK(node != nullptr && node->op_type() != ir::Op_NONE && node->op_type() <= ir::Op_MAX &&
                  node->op() != nullptr,
              "node %zu has an unknown op; was the file written by a newer version?", index);
    const size_t most = node->op_type() == ir::Op_Recurrent ? kMaxRecurrentOutputs : 1;
    GGD_CHECK(length(node->outputs()) >= 1 && length(node->outputs()) <= most,
              "node %zu has %zu outputs, expected 1 to %zu", index, length(node->outputs()), most);
    for (size_t i = 0; i < length(node->inputs()); ++i) {
      const int32_t tensor = node->inputs()->Get(static_cast<uint32_t>(i));
      GGD_CHECK(tensor == -1 || (tensor >= 0 && static_cast<size_t>(tensor) < defined_.size() &&
                                 defined_[static_cast<size_t>(tensor)]),
                "node %zu reads tensor %d before anything computes it", index, tensor);
      GGD_CHECK(
          tensor == -1 || !program_.tensors()->Get(static_cast<uint32_t>(tensor))->is_scalar(),
          "node %zu reads scalar %d as a tensor", index, tensor);
    }
    for (const uint32_t output : *node->outputs()) {
      GGD_TRY(define(output, "an output of node", index));
      GGD_TRY(check_no_scalar(output, "an output of node", index));
    }
    return Error::Ok;
  }

  const ir::Program& program_;
  std::vector<bool> defined_;
};

}  // namespace

Error verify_program(const ir::Program& program) {
  GGD_CHECK(length(program.tensors()) <= kMaxTensors, "too many tensors: %zu",
            length(program.tensors()));
  GGD_CHECK(length(program.nodes()) <= kMaxNodes, "too many nodes: %zu", length(program.nodes()));
  GGD_CHECK(program.tensors() != nullptr, "no tensors");
  for (size_t i = 0; i < length(program.exprs()); ++i) {
    GGD_TRY(
        verify_expr(program.exprs()->Get(static_cast<uint32_t>(i)), i, length(program.symbols())));
  }
  for (size_t i = 0; i < length(program.tensors()); ++i) {
    GGD_TRY(verify_tensor(program.tensors()->Get(static_cast<uint32_t>(i)), i,
                          length(program.exprs())));
  }
  GGD_TRY(DataflowCheck(program).run());
  return verify_symbols(program);
}

}  // namespace ggml_delegate
