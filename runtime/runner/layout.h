// Copies between C order, which files use, and a method's dim orders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace orchestrator {

// Copies a dense tensor between layouts; strides are in elements, `element_size` in bytes.
void copy_strided(const std::byte* from, const std::vector<int64_t>& from_strides, std::byte* to,
                  const std::vector<int64_t>& to_strides, const std::vector<int64_t>& sizes,
                  size_t element_size);

// Strides of a tensor in C order.
std::vector<int64_t> c_strides(const std::vector<int64_t>& sizes);

}  // namespace orchestrator
