#include "in_place.h"

#include "shape.h"

namespace ggml_delegate {
namespace {

template <typename Vector>
size_t length(const Vector* vector) {
  return vector == nullptr ? 0 : vector->size();
}

bool is_contiguous(const ir::Tensor& tensor) {
  for (uint32_t i = 0; i < length(tensor.dim_order()); ++i) {
    if (tensor.dim_order()->Get(i) != i) return false;
  }
  return true;
}

// Who reads the tensors of a program.
class Readers {
 public:
  explicit Readers(const ir::Program& program)
      : counts_(program.tensors()->size(), 0), last_(program.tensors()->size(), 0) {
    for (uint32_t i = 0; i < length(program.nodes()); ++i) {
      const auto* inputs = program.nodes()->Get(i)->inputs();
      for (uint32_t j = 0; j < length(inputs); ++j) {
        if (inputs->Get(j) < 0) continue;
        ++counts_[static_cast<size_t>(inputs->Get(j))];
        last_[static_cast<size_t>(inputs->Get(j))] = i + 1;
      }
    }
    for (uint32_t i = 0; i < length(program.outputs()); ++i) ++counts_[program.outputs()->Get(i)];
  }

  // The number of the node that reads the tensor, once; InPlaceUpdates::kNone if several do, none
  // does, or it is a result of the program.
  int64_t only(uint32_t tensor) const {
    return counts_[tensor] == 1 && last_[tensor] > 0 ? int64_t{last_[tensor]} - 1
                                                     : int64_t{InPlaceUpdates::kNone};
  }

 private:
  std::vector<uint32_t> counts_;
  std::vector<uint32_t> last_;  // the last node that reads it, plus one
};

// Marks the nodes that lead from one tensor to another.
Error follow(const ir::Program& program, const Readers& readers, const ir::InPlace& pair,
             InPlaceUpdates& updates) {
  uint32_t tensor = program.inputs()->Get(pair.input());
  const uint32_t last = program.outputs()->Get(pair.output());
  const ir::DType dtype = program.tensors()->Get(tensor)->dtype();
  GGD_CHECK(tensor != last, "output %u is input %u and cannot be its new value", pair.output(),
            pair.input());
  while (true) {
    const ir::Tensor& now = *program.tensors()->Get(tensor);
    GGD_CHECK(now.dtype() == dtype && is_contiguous(now),
              "output %u cannot have the memory of input %u: tensor %u between them has another "
              "dtype or dim order",
              pair.output(), pair.input(), tensor);
    if (tensor == last) return Error::Ok;
    const int64_t reader = readers.only(tensor);
    GGD_CHECK(reader >= 0,
              "output %u cannot have the memory of input %u: the update of tensor %u is not all "
              "that reads it",
              pair.output(), pair.input(), tensor);
    const ir::Node& node = *program.nodes()->Get(static_cast<uint32_t>(reader));
    GGD_CHECK(
        node.op_type() == ir::Op_IndexPut && node.inputs()->Get(0) == static_cast<int32_t>(tensor),
        "output %u cannot have the memory of input %u: node %lld (%s) does not update "
        "tensor %u",
        pair.output(), pair.input(), static_cast<long long>(reader), ir::EnumNameOp(node.op_type()),
        tensor);
    updates.nodes[static_cast<size_t>(reader)] = true;
    tensor = node.outputs()->Get(0);
  }
}

}  // namespace

Result<InPlaceUpdates> in_place_updates(const ir::Program& program) {
  InPlaceUpdates updates;
  updates.nodes.assign(length(program.nodes()), false);
  updates.inputs.assign(length(program.outputs()), InPlaceUpdates::kNone);
  updates.updated.assign(length(program.inputs()), false);
  if (length(program.in_place()) == 0) return updates;
  const Readers readers(program);
  for (uint32_t i = 0; i < program.in_place()->size(); ++i) {
    const ir::InPlace* pair = program.in_place()->Get(i);
    GGD_CHECK(pair != nullptr && pair->input() < updates.updated.size() &&
                  pair->output() < updates.inputs.size(),
              "in-place update %u names an input or output that the program lacks", i);
    GGD_CHECK(
        !updates.updated[pair->input()] && updates.inputs[pair->output()] == InPlaceUpdates::kNone,
        "in-place update %u names an input or output that another one has", i);
    updates.updated[pair->input()] = true;
    updates.inputs[pair->output()] = static_cast<int32_t>(pair->input());
    GGD_TRY(follow(program, readers, *pair, updates));
  }
  return updates;
}

}  // namespace ggml_delegate
