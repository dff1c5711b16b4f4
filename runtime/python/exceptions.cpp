#include "runtime/python/exceptions.h"

#include <string>

#include "runtime/program/errors.h"

namespace py = pybind11;

namespace orchestrator {
namespace {

PYBIND11_CONSTINIT py::gil_safe_call_once_and_store<py::object> executorch_error;

// A corrupt file may bring names that are no UTF-8 into a message.
py::str to_str(const std::string& text) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(text.data(), static_cast<ssize_t>(text.size()), "backslashreplace");
  if (decoded == nullptr) {
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::str>(decoded);
}

void raise(const ProgramError& error) {
  const py::object& type = executorch_error.get_stored();
  const py::object instance = type(to_str(error.what()));
  py::list log;
  for (const std::string& line : error.log()) {
    log.append(to_str(line));
  }
  instance.attr("code") = error.code();
  instance.attr("log") = py::tuple(log);
  PyErr_SetObject(type.ptr(), instance.ptr());
}

}  // namespace

void define_exceptions(py::module_& module) {
  executorch_error.call_once_and_store_result([&] {
    return py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
        "_ggml_delegate._runtime.ExecuTorchError",
        "ExecuTorch refused a program or failed while running it. `code` is the name of its "
        "error, `log` the lines that it logged about it, oldest first.",
        PyExc_RuntimeError, nullptr));
  });
  module.attr("ExecuTorchError") = executorch_error.get_stored();
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) {
        std::rethrow_exception(pointer);
      }
    } catch (const ProgramError& error) {
      raise(error);
    } catch (const InputTypeError& error) {
      PyErr_SetObject(PyExc_TypeError, to_str(error.what()).ptr());
    } catch (const InputValueError& error) {
      PyErr_SetObject(PyExc_ValueError, to_str(error.what()).ptr());
    }
  });
}

}  // namespace orchestrator
