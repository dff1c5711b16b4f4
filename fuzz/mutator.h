// Changes IR programs into other well-formed FlatBuffers with wrong contents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ggml_delegate::fuzz {

// A changed copy of an IR program, or nothing when the bytes are no IR program. Equal arguments
// give equal results.
std::vector<uint8_t> mutate_ir(const uint8_t* data, size_t size, unsigned seed);

// Overwrites a few numbers of a FlatBuffer in place; false when the bytes are no IR program.
bool scramble_ir(uint8_t* data, size_t size, unsigned seed);

}  // namespace ggml_delegate::fuzz
