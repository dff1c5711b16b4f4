#include "runtime/python/exceptions.h"

#include <pybind11/stl.h>

#include "runtime/program/errors.h"

namespace py = pybind11;

namespace orchestrator {
namespace {

PYBIND11_CONSTINIT py::gil_safe_call_once_and_store<py::object> execu_torch_error;

void raise(const ProgramError& error) {
  const py::object& type = execu_torch_error.get_stored();
  const py::object instance = type(py::str(error.what()));
  instance.attr("code") = error.code();
  instance.attr("log") = py::tuple(py::cast(error.log()));
  PyErr_SetObject(type.ptr(), instance.ptr());
}

}  // namespace

void define_exceptions(py::module_& module) {
  execu_torch_error.call_once_and_store_result([&] {
    return py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
        "_ggml_delegate._runtime.ExecuTorchError",
        "ExecuTorch refused a program or failed while running it. `code` is the name of its "
        "error, `log` the lines that it logged about it, oldest first.",
        PyExc_RuntimeError, nullptr));
  });
  module.attr("ExecuTorchError") = execu_torch_error.get_stored();
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) {
        std::rethrow_exception(pointer);
      }
    } catch (const ProgramError& error) {
      raise(error);
    } catch (const InputTypeError& error) {
      PyErr_SetString(PyExc_TypeError, error.what());
    } catch (const InputValueError& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });
}

}  // namespace orchestrator
