#include "runtime/python/conversions.h"

#include <optional>
#include <string>
#include <utility>

namespace py = pybind11;

namespace orchestrator {
namespace {

std::string type_name(const py::handle& object) {
  return py::str(py::type::handle_of(object).attr("__name__"));
}

// Keeps a buffer's memory in place.
struct LockedBuffer {
  explicit LockedBuffer(const py::buffer& buffer) : info(buffer.request()) {}
  ~LockedBuffer() {
    const py::gil_scoped_acquire acquire;
    info.reset();
  }
  LockedBuffer(const LockedBuffer&) = delete;
  LockedBuffer& operator=(const LockedBuffer&) = delete;

  std::optional<py::buffer_info> info;
};

[[noreturn]] void refuse(size_t index, const std::string& problem) {
  throw py::type_error("input " + std::to_string(index) + ": " + problem);
}

int64_t to_int64(const py::object& input, size_t index) {
  int overflow = 0;
  const int64_t value = PyLong_AsLongLongAndOverflow(input.ptr(), &overflow);
  if (overflow != 0) {
    refuse(index, "integers have 64 bits, found " + std::string(py::str(input)));
  }
  return value;
}

// Whether struct's format code names elements of this dtype; the codes for C's int and long
// depend on the platform, so signedness and size decide.
bool same_element(const std::string& format, const DType& dtype) {
  if (format.size() != 1) {
    return false;
  }
  const std::string families[] = {"bhilq", "BHILQ"};
  for (const std::string& family : families) {
    if (family.find(dtype.format) != std::string::npos) {
      return family.find(format) != std::string::npos;
    }
  }
  return format[0] == dtype.format;
}

py::buffer_info export_memory(OutputTensor& tensor) {
  const auto item_size = static_cast<ssize_t>(tensor.dtype->size);
  std::vector<ssize_t> strides(tensor.strides.begin(), tensor.strides.end());
  for (ssize_t& stride : strides) {
    stride *= item_size;
  }
  return py::buffer_info(tensor.data.data(), item_size, std::string(1, tensor.dtype->format),
                         static_cast<ssize_t>(tensor.sizes.size()),
                         std::vector<ssize_t>(tensor.sizes.begin(), tensor.sizes.end()),
                         std::move(strides));
}

}  // namespace

InputBuffers::InputBuffers(const py::sequence& inputs) {
  buffers_.reserve(inputs.size());
  inputs_.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const py::object input = inputs[i];
    if (input.is_none()) {
      inputs_.emplace_back(Scalar(std::monostate()));
    } else if (py::isinstance<py::bool_>(input)) {
      inputs_.emplace_back(Scalar(input.cast<bool>()));
    } else if (py::isinstance<py::int_>(input)) {
      inputs_.emplace_back(Scalar(to_int64(input, i)));
    } else if (py::isinstance<py::float_>(input)) {
      inputs_.emplace_back(Scalar(input.cast<double>()));
    } else if (py::isinstance<py::str>(input)) {
      inputs_.emplace_back(Scalar(input.cast<std::string>()));
    } else if (py::isinstance<py::tuple>(input) && py::len(input) == 2) {
      inputs_.emplace_back(view(input, i));
    } else {
      refuse(i, "expected a tensor or a scalar, found " + type_name(input));
    }
  }
}

TensorView InputBuffers::view(const py::tuple& tensor, size_t index) {
  const auto name = tensor[1].cast<std::string>();
  TensorView view;
  view.dtype = find_dtype(name);
  if (view.dtype == nullptr) {
    refuse(index, "dtype " + name + " cannot cross a method's boundary");
  }
  buffers_.push_back(tensor[0].cast<py::buffer>().request());
  const py::buffer_info& buffer = buffers_.back();
  const auto item_size = static_cast<ssize_t>(view.dtype->size);
  if (buffer.itemsize != item_size || !same_element(buffer.format, *view.dtype)) {
    refuse(index, "a buffer of format '" + buffer.format + "' holds no " + name);
  }
  view.data = buffer.ptr;
  view.sizes.assign(buffer.shape.begin(), buffer.shape.end());
  for (const ssize_t stride : buffer.strides) {
    // A stride of part of an element fits no layout.
    view.strides.push_back(stride % item_size == 0 ? stride / item_size : -1);
  }
  return view;
}

py::object to_python(const Scalar& scalar) {
  struct Visitor {
    py::object operator()(std::monostate) const { return py::none(); }
    py::object operator()(bool value) const { return py::bool_(value); }
    py::object operator()(int64_t value) const { return py::int_(value); }
    py::object operator()(double value) const { return py::float_(value); }
    py::object operator()(const std::string& value) const { return py::str(value); }
  };
  return std::visit(Visitor{}, scalar);
}

py::list to_python(std::vector<Output> outputs) {
  py::list list;
  for (Output& output : outputs) {
    if (auto* tensor = std::get_if<OutputTensor>(&output)) {
      list.append(py::cast(std::move(*tensor)));
    } else {
      list.append(to_python(std::get<Scalar>(output)));
    }
  }
  return list;
}

std::shared_ptr<const void> keep_alive(const py::buffer& buffer) {
  return std::make_shared<LockedBuffer>(buffer);
}

void define_tensor(py::module_& module) {
  py::class_<OutputTensor>(module, "Tensor", py::buffer_protocol(),
                           "An output of a method: memory of its own, as a buffer.")
      .def_property_readonly("dtype", [](const OutputTensor& tensor) { return tensor.dtype->name; })
      .def_buffer(&export_memory);
}

}  // namespace orchestrator
