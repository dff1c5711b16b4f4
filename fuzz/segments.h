// Finds the delegates' IR in a .pte. Apart from the target, because ExecuTorch's headers declare
// FlatBuffers' classes in another way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ggml_delegate::fuzz {

// Offset and size of each segment of the file that holds IR.
std::vector<std::pair<size_t, size_t>> find_ir(const uint8_t* data, size_t size);

}  // namespace ggml_delegate::fuzz
