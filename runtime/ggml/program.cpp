#include "program.h"

#include <algorithm>
#include <cstring>

#include "verify.h"

namespace ggml_delegate {
namespace {

constexpr uint32_t kMaxDepth = 16;
constexpr uint32_t kMaxTables = 4'000'000;

// Python's // and %: torch's size expressions use them.
int64_t floor_div(int64_t a, int64_t b) {
  return a / b - static_cast<int64_t>(a % b != 0 && (a < 0) != (b < 0));
}

Result<int64_t> apply(ir::ExprOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case ir::ExprOp_Add:
      GGD_CHECK(!__builtin_add_overflow(a, b, &result), "a size expression overflows");
      return result;
    case ir::ExprOp_Mul:
      GGD_CHECK(!__builtin_mul_overflow(a, b, &result), "a size expression overflows");
      return result;
    case ir::ExprOp_FloorDiv:
      GGD_CHECK(b > 0, "a size expression divides by %lld", static_cast<long long>(b));
      return floor_div(a, b);
    case ir::ExprOp_Mod:
      GGD_CHECK(b > 0, "a size expression divides by %lld", static_cast<long long>(b));
      return a % b < 0 ? a % b + b : a % b;
    case ir::ExprOp_Max:
      return std::max(a, b);
    case ir::ExprOp_Min:
      return std::min(a, b);
    case ir::ExprOp_Const:
    case ir::ExprOp_Symbol:
      break;
  }
  return Error::InvalidProgram;
}

Result<int64_t> evaluate_expr(const ir::Expr& expr, const std::vector<int64_t>& symbols) {
  // verify_program bounds the number of tokens, so also the stack.
  std::array<int64_t, 256> stack{};
  size_t depth = 0;
  for (const ir::ExprToken* token : *expr.tokens()) {
    if (token->op() == ir::ExprOp_Const) {
      stack[depth++] = token->value();
    } else if (token->op() == ir::ExprOp_Symbol) {
      stack[depth++] = symbols[static_cast<size_t>(token->value())];
    } else {
      --depth;
      GGD_ASSIGN(stack[depth - 1], apply(token->op(), stack[depth - 1], stack[depth]));
    }
  }
  return stack[0];
}

}  // namespace

size_t element_size(ir::DType dtype) {
  switch (dtype) {
    case ir::DType_Float32:
    case ir::DType_Int32:
      return 4;
    case ir::DType_Float16:
    case ir::DType_BFloat16:
      return 2;
    case ir::DType_Int64:
      return 8;
    case ir::DType_Bool:
    case ir::DType_Int8:
    case ir::DType_UInt8:
      return 1;
  }
  return 0;
}

Result<Program> Program::parse(const void* data, size_t size) {
  GGD_CHECK(data != nullptr && size >= 16 && size < (size_t{1} << 31),
            "a partition of %zu bytes is not one of this delegate's", size);
  Program program;
  program.storage_.resize((size + 7) / 8);
  std::memcpy(program.storage_.data(), data, size);
  const auto* bytes = reinterpret_cast<const uint8_t*>(program.storage_.data());
  GGD_CHECK(ir::ProgramBufferHasIdentifier(bytes),
            "a partition lacks the identifier \"%s\": the file is corrupt or not this delegate's",
            ir::ProgramIdentifier());
  flatbuffers::Verifier verifier(bytes, size, kMaxDepth, kMaxTables);
  GGD_CHECK(ir::VerifyProgramBuffer(verifier), "a partition's bytes are corrupt or truncated");
  program.ir_ = ir::GetProgram(bytes);
  GGD_CHECK_OR(DelegateInvalidCompatibility, program.ir_->version() == kIrVersion,
               "the file has IR version %u, this runtime reads %u; lower the model again",
               program.ir_->version(), kIrVersion);
  GGD_TRY(verify_program(*program.ir_));
  GGD_ASSIGN(program.in_place_, in_place_updates(*program.ir_));
  return program;
}

Result<int64_t> Program::evaluate(const ir::Dim& dim, const std::vector<int64_t>& symbols) const {
  if (dim.expr() < 0) {
    GGD_CHECK(dim.value() >= 0, "a size is %lld", static_cast<long long>(dim.value()));
    return dim.value();
  }
  // Dimensions of tensors are verified with the file; attributes of ops are not.
  const size_t exprs = ir_->exprs() == nullptr ? 0 : ir_->exprs()->size();
  GGD_CHECK(static_cast<size_t>(dim.expr()) < exprs, "a size names expression %d of %zu",
            dim.expr(), exprs);
  GGD_ASSIGN(const int64_t value,
             evaluate_expr(*ir_->exprs()->Get(static_cast<uint32_t>(dim.expr())), symbols));
  GGD_CHECK(value >= 0 && value <= dim.value(), "a dynamic size is %lld, its bound is %lld",
            static_cast<long long>(value), static_cast<long long>(dim.value()));
  return value;
}

Result<Sizes> Program::sizes(size_t index, const std::vector<int64_t>& symbols) const {
  Sizes sizes;
  int64_t count = 1;
  const auto* dims = tensor(index).dims();
  for (uint32_t i = 0; dims != nullptr && i < dims->size(); ++i) {
    GGD_ASSIGN(const int64_t size, evaluate(*dims->Get(i), symbols));
    // What stands next to a size of 0 counts too: strides are made of it.
    GGD_CHECK(size == 0 || (!__builtin_mul_overflow(count, size, &count) && count <= kMaxElements),
              "tensor %zu has over %lld elements", index, static_cast<long long>(kMaxElements));
    sizes.push_back(size);
  }
  return sizes;
}

Order Program::order(size_t index) const {
  const ir::Tensor& t = tensor(index);
  const size_t rank = t.dims() == nullptr ? 0 : t.dims()->size();
  if (t.dim_order() == nullptr || t.dim_order()->size() == 0) return identity_order(rank);
  Order order;
  for (const uint8_t dim : *t.dim_order()) order.push_back(dim);
  return order;
}

}  // namespace ggml_delegate
