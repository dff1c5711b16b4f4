#include "runtime/runner/layout.h"

#include <cstring>
#include <numeric>

#include "runtime/program/tensor.h"

namespace orchestrator {

void copy_strided(const std::byte* from, const std::vector<int64_t>& from_strides, std::byte* to,
                  const std::vector<int64_t>& to_strides, const std::vector<int64_t>& sizes,
                  size_t element_size) {
  const auto width = static_cast<int64_t>(element_size);
  std::vector<int64_t> index(sizes.size(), 0);
  for (int64_t left = element_count(sizes); left > 0; --left) {
    std::memcpy(to, from, element_size);
    // Counts up like an odometer, moving both pointers along.
    for (size_t dim = sizes.size(); dim > 0; --dim) {
      const size_t d = dim - 1;
      const bool wraps = ++index[d] == sizes[d];
      const int64_t steps = wraps ? 1 - sizes[d] : 1;
      from += steps * from_strides[d] * width;
      to += steps * to_strides[d] * width;
      if (!wraps) {
        break;
      }
      index[d] = 0;
    }
  }
}

std::vector<int64_t> c_strides(const std::vector<int64_t>& sizes) {
  std::vector<uint8_t> dim_order(sizes.size());
  std::iota(dim_order.begin(), dim_order.end(), uint8_t{0});
  return dense_strides(sizes, dim_order);
}

}  // namespace orchestrator
