// A verified IR program: after parse() every index, enum and size in it is in range.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "in_place.h"
#include "ir_generated.h"
#include "log.h"
#include "shape.h"

namespace ggml_delegate {

inline constexpr uint32_t kIrVersion = static_cast<uint32_t>(ir::Limit_Version);

class Program {
 public:
  // Copies the bytes (the IR holds no weights) and verifies them.
  // Errors: InvalidProgram, DelegateInvalidCompatibility for another IR version.
  static Result<Program> parse(const void* data, size_t size);

  const ir::Program& ir() const { return *ir_; }
  size_t tensor_count() const { return ir_->tensors()->size(); }
  const ir::Tensor& tensor(size_t i) const { return *ir_->tensors()->Get(i); }
  size_t symbol_count() const { return ir_->symbols() ? ir_->symbols()->size() : 0; }
  size_t input_count() const { return ir_->inputs() ? ir_->inputs()->size() : 0; }
  size_t output_count() const { return ir_->outputs() ? ir_->outputs()->size() : 0; }
  const ir::Tensor& input(size_t i) const { return tensor(ir_->inputs()->Get(i)); }
  const ir::Tensor& output(size_t i) const { return tensor(ir_->outputs()->Get(i)); }

  // Whether node number `index` writes into the memory of its input 0.
  bool updates_in_place(size_t index) const { return in_place_.nodes[index]; }
  // The input whose memory output number `index` may have, or InPlaceUpdates::kNone.
  int32_t input_of_output(size_t index) const { return in_place_.inputs[index]; }

  // Whether input number `index` is state whose memory an output may have.
  bool is_updated_in_place(size_t index) const { return in_place_.updated[index]; }

  // The value of a dimension for these symbol values. Errors: InvalidProgram when it is negative,
  // above its upper bound or not computable.
  Result<int64_t> evaluate(const ir::Dim& dim, const std::vector<int64_t>& symbols) const;
  // The sizes of tensor number `index`; at most kMaxElements elements.
  Result<Sizes> sizes(size_t index, const std::vector<int64_t>& symbols) const;
  // The dim order of tensor number `index`.
  Order order(size_t index) const;

 private:
  std::vector<uint64_t> storage_;  // 8-byte aligned, as FlatBuffers needs
  const ir::Program* ir_ = nullptr;
  InPlaceUpdates in_place_;
};

inline bool is_constant(const ir::Tensor& tensor) {
  return tensor.data_key() != nullptr && tensor.data_key()->size() > 0;
}

// Bytes per element.
size_t element_size(ir::DType dtype);

}  // namespace ggml_delegate
