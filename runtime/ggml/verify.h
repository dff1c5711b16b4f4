// Checks an IR program's cross references; parse() in program.cpp is the only caller.
#pragma once

#include "ir_generated.h"
#include "log.h"

namespace ggml_delegate {

// Errors: InvalidProgram, with a log line that names what is wrong and where.
Error verify_program(const ir::Program& program);

}  // namespace ggml_delegate
