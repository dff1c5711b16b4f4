// Python values to and from a program's inputs and outputs.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "runtime/program/tensor.h"

namespace orchestrator {

// A run's inputs: None, bool, int, float, str, or (buffer, dtype name) for a tensor. Holds the
// buffers while it lives; create and destroy it with the GIL held.
class InputBuffers {
 public:
  // Throws TypeError for anything else and for a dtype that does not fit its buffer.
  explicit InputBuffers(const pybind11::sequence& inputs);

  const std::vector<Input>& inputs() const { return inputs_; }

 private:
  TensorView view(const pybind11::tuple& tensor, size_t index);

  std::vector<pybind11::buffer_info> buffers_;
  std::vector<Input> inputs_;
};

// Scalars as themselves, tensors as Tensor.
pybind11::list to_python(std::vector<Output> outputs);
pybind11::object to_python(const Scalar& scalar);

// A reference to a buffer's owner that may be dropped from any thread, with the buffer's memory
// locked in place.
std::shared_ptr<const void> keep_alive(const pybind11::buffer& buffer);

// Defines the class Tensor: an output, which exports its memory by the buffer protocol.
void define_tensor(pybind11::module_& module);

}  // namespace orchestrator
