// Runs an IR program with made-up weights and inputs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ggml_delegate::fuzz {

// What a partition may ask for; tools/fuzz.sh counts a larger allocation as a finding.
constexpr size_t kMemoryLimit = size_t{512} << 20;

// Loads the program and, if it loads, runs it twice. Whatever the bytes are, this returns.
void run_ir(const uint8_t* data, size_t size);

}  // namespace ggml_delegate::fuzz
