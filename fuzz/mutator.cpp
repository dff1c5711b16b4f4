#include "mutator.h"

#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
#include <random>

#include "ir_bfbs_generated.h"
#include "ir_generated.h"
#include "runtime/ggml/ops/lower.h"
#include "slots.h"

namespace ggml_delegate::fuzz {
namespace {

constexpr int64_t kIntegers[] = {0,
                                 1,
                                 2,
                                 3,
                                 4,
                                 5,
                                 8,
                                 15,
                                 16,
                                 17,
                                 64,
                                 255,
                                 256,
                                 65535,
                                 1 << 20,
                                 (1 << 20) + 1,
                                 std::numeric_limits<int32_t>::max(),
                                 int64_t{1} << 32,
                                 int64_t{1} << 40,
                                 int64_t{1} << 62,
                                 std::numeric_limits<int64_t>::max(),
                                 std::numeric_limits<int64_t>::min(),
                                 -1,
                                 -2};
constexpr double kReals[] = {0.0,  -0.0,  1.0,      -1.0,      0.5, 1e-5,
                             1e38, 1e-38, INFINITY, -INFINITY, NAN, 3.0};

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  size_t below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <typename T>
  T& any(std::vector<T>& items) {
    return items[below(items.size())];
  }

  void change(ir::ProgramT& program) {
    switch (below(12)) {
      case 0:
        return copy_node(program);
      case 1:
        return drop(program.nodes);
      case 2:
        return change_op(program);
      case 3:
      case 4:
        return change_inputs(program);
      case 5:
      case 6:
        return change_sizes(program);
      case 7:
        return change_tensor(program);
      case 8:
        return change_expr(program);
      case 9:
        return change_ports(program);
      case 10:
        return swap_sizes(program);
      default:
        return change_symbols(program);
    }
  }

  void scramble(const std::vector<Slot>& slots) {
    const size_t count = 1 + below(4);
    for (size_t i = 0; i < count && !slots.empty(); ++i) write(slots[below(slots.size())]);
  }

 private:
  int64_t integer(int64_t old) {
    switch (below(4)) {
      case 0:
        return static_cast<int64_t>(static_cast<uint64_t>(old) + 1);
      case 1:
        return static_cast<int64_t>(static_cast<uint64_t>(old) - 1);
      case 2:
        return static_cast<int64_t>(below(20));
      default:
        return kIntegers[below(std::size(kIntegers))];
    }
  }

  void write(const Slot& slot) {
    if (slot.type == reflection::Float || slot.type == reflection::Double) {
      flatbuffers::SetAnyValueF(slot.type, slot.bytes, kReals[below(std::size(kReals))]);
    } else {
      const int64_t old = flatbuffers::GetAnyValueI(slot.type, slot.bytes);
      flatbuffers::SetAnyValueI(slot.type, slot.bytes, integer(old));
    }
  }

  template <typename T>
  void drop(std::vector<T>& items) {
    if (!items.empty()) items.erase(items.begin() + static_cast<ptrdiff_t>(below(items.size())));
  }

  int32_t tensor(const ir::ProgramT& program) {
    return static_cast<int32_t>(below(program.tensors.size() + (chance(3) ? 2 : 0)));
  }

  // Another node of a kind that is there, with a result of its own that later nodes may read.
  void copy_node(ir::ProgramT& program) {
    if (program.nodes.empty() || program.nodes.size() > 64) return;
    const size_t from = below(program.nodes.size());
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(ir::Node::Pack(builder, program.nodes[from].get()));
    std::unique_ptr<ir::NodeT> copy(
        flatbuffers::GetRoot<ir::Node>(builder.GetBufferPointer())->UnPack());
    if (!copy->outputs.empty() && copy->outputs[0] < program.tensors.size()) {
      auto result = std::make_unique<ir::TensorT>();
      const ir::TensorT& old = *program.tensors[copy->outputs[0]];
      result->dtype = old.dtype;
      result->dims = old.dims;
      copy->outputs[0] = static_cast<uint32_t>(program.tensors.size());
      program.tensors.push_back(std::move(result));
      if (chance(70)) program.outputs.push_back(copy->outputs[0]);
    }
    const size_t to = from + below(program.nodes.size() - from) + 1;
    program.nodes.insert(program.nodes.begin() + static_cast<ptrdiff_t>(to), std::move(copy));
  }

  void change_op(ir::ProgramT& program) {
    if (program.nodes.empty()) return;
    ir::OpUnion& op = any(program.nodes)->op;
    switch (static_cast<ir::Op>(1 + below(ir::Op_MAX))) {
#define GGD_CASE(Op)     \
  case ir::Op_##Op:      \
    op.Set(ir::Op##T{}); \
    break;
      GGD_FOR_EACH_OP(GGD_CASE)
#undef GGD_CASE
      case ir::Op_NONE:
        break;
    }
  }

  void change_inputs(ir::ProgramT& program) {
    if (program.nodes.empty()) return;
    std::vector<int32_t>& inputs = any(program.nodes)->inputs;
    const size_t kind = below(8);
    if (kind == 0) {
      inputs.push_back(tensor(program));
    } else if (kind == 1) {
      drop(inputs);
    } else if (!inputs.empty()) {
      any(inputs) = kind == 2 ? -1 : tensor(program);
    }
  }

  void change_sizes(ir::ProgramT& program) {
    if (program.tensors.empty()) return;
    std::vector<ir::Dim>& dims = any(program.tensors)->dims;
    const size_t kind = below(6);
    if (kind == 0) {
      dims.insert(dims.begin() + static_cast<ptrdiff_t>(below(dims.size() + 1)),
                  ir::Dim(static_cast<int64_t>(below(4)), -1));
    } else if (kind == 1) {
      drop(dims);
    } else if (dims.size() > 1 && kind == 2) {
      std::swap(any(dims), any(dims));
    } else if (!dims.empty()) {
      ir::Dim& dim = any(dims);
      const bool dynamic = chance(10) && !program.exprs.empty();
      dim = ir::Dim(integer(dim.value()),
                    dynamic ? static_cast<int32_t>(below(program.exprs.size() + 1)) : dim.expr());
    }
  }

  // The same new size wherever an old one stands, so that tensors still fit each other.
  void swap_sizes(ir::ProgramT& program) {
    if (program.tensors.empty()) return;
    std::vector<ir::Dim>& dims = any(program.tensors)->dims;
    if (dims.empty()) return;
    const int64_t old = any(dims).value();
    const auto next = static_cast<int64_t>(below(24));
    for (auto& tensor : program.tensors) {
      for (ir::Dim& dim : tensor->dims) {
        if (dim.value() == old) dim = ir::Dim(next, dim.expr());
      }
    }
  }

  void change_tensor(ir::ProgramT& program) {
    if (program.tensors.empty()) return;
    ir::TensorT& tensor = *any(program.tensors);
    switch (below(5)) {
      case 0:
        tensor.dtype = static_cast<ir::DType>(below(ir::DType_MAX + 2));
        break;
      case 1:
        tensor.is_scalar = !tensor.is_scalar;
        break;
      case 2:
        tensor.data_key = tensor.data_key.empty() ? "made up" : "";
        break;
      case 3:
        tensor.dim_order.clear();
        for (size_t i = 0; i < tensor.dims.size(); ++i) {
          tensor.dim_order.push_back(static_cast<uint8_t>(i));
        }
        if (tensor.dim_order.size() > 1) std::swap(any(tensor.dim_order), any(tensor.dim_order));
        break;
      default:
        program.tensors.push_back(std::make_unique<ir::TensorT>());
    }
  }

  void change_expr(ir::ProgramT& program) {
    if (program.exprs.empty() || chance(20)) {
      program.exprs.push_back(std::make_unique<ir::ExprT>());
    }
    std::vector<ir::ExprToken>& tokens = any(program.exprs)->tokens;
    const auto op = static_cast<ir::ExprOp>(below(ir::ExprOp_MAX + 1));
    const int64_t value = op == ir::ExprOp_Symbol
                              ? static_cast<int64_t>(below(program.symbols.size() + 1))
                              : integer(2);
    if (tokens.empty() || chance(50)) {
      const size_t place = chance(60) ? tokens.size() : below(tokens.size() + 1);
      tokens.insert(tokens.begin() + static_cast<ptrdiff_t>(place), ir::ExprToken(op, value));
    } else {
      any(tokens) = ir::ExprToken(op, value);
    }
  }

  void change_ports(ir::ProgramT& program) {
    std::vector<uint32_t>& ports = chance(50) ? program.inputs : program.outputs;
    if (ports.empty() || chance(50)) {
      ports.push_back(static_cast<uint32_t>(tensor(program)));
    } else if (chance(50)) {
      drop(ports);
    } else {
      any(ports) = static_cast<uint32_t>(tensor(program));
    }
  }

  void change_symbols(ir::ProgramT& program) {
    if (chance(50)) {
      auto symbol = std::make_unique<ir::SymbolT>();
      symbol->min = integer(1);
      symbol->max = integer(8);
      program.symbols.push_back(std::move(symbol));
    }
    if (chance(70)) {
      program.bindings.emplace_back(static_cast<uint32_t>(below(program.symbols.size() + 1)),
                                    static_cast<uint32_t>(below(program.inputs.size() + 1)),
                                    static_cast<int32_t>(below(5)) - 1, integer(1), integer(0));
    } else {
      drop(program.bindings);
    }
  }

  std::mt19937 random_;
};

const reflection::Schema& schema() {
  return *reflection::GetSchema(ir::ProgramBinarySchema::data());
}

bool is_ir(const uint8_t* data, size_t size) {
  if (size < 16) return false;
  flatbuffers::Verifier verifier(data, size, 16, 100'000);
  return ir::ProgramBufferHasIdentifier(data) && ir::VerifyProgramBuffer(verifier);
}

}  // namespace

bool scramble_ir(uint8_t* data, size_t size, unsigned seed) {
  if (!is_ir(data, size)) return false;
  Mutator(seed).scramble(find_slots(schema(), data));
  return true;
}

std::vector<uint8_t> mutate_ir(const uint8_t* data, size_t size, unsigned seed) {
  if (!is_ir(data, size)) return {};
  Mutator mutator(seed);
  const std::unique_ptr<ir::ProgramT> program(ir::GetProgram(data)->UnPack());
  for (const auto& node : program->nodes) {
    if (node->op.value == nullptr) node->op.type = ir::Op_NONE;  // what Pack() takes for granted
  }
  const size_t changes = mutator.below(4);
  for (size_t i = 0; i < changes; ++i) mutator.change(*program);
  flatbuffers::FlatBufferBuilder builder;
  builder.ForceDefaults(true);  // so that every number has a place to be changed in
  ir::FinishProgramBuffer(builder, ir::Program::Pack(builder, program.get()));
  std::vector<uint8_t> bytes(builder.GetBufferPointer(),
                             builder.GetBufferPointer() + builder.GetSize());
  if (changes == 0 || mutator.chance(40)) mutator.scramble(find_slots(schema(), bytes.data()));
  return bytes;
}

}  // namespace ggml_delegate::fuzz
