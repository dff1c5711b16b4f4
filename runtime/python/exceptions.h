// The module's exceptions.
#pragma once

#include <pybind11/pybind11.h>

namespace orchestrator {

// Defines ExecuTorchError (a RuntimeError with `code` and `log`), and turns ProgramError into it,
// InputTypeError into TypeError and InputValueError into ValueError.
void define_exceptions(pybind11::module_& module);

}  // namespace orchestrator
