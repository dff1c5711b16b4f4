// Runs an IR program with made-up weights and inputs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ggml_delegate::fuzz {

// Loads the program and, if it loads, runs it twice. Whatever the bytes are, this returns.
void run_ir(const uint8_t* data, size_t size);

}  // namespace ggml_delegate::fuzz
