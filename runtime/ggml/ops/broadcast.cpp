#include "broadcast.h"

#include <algorithm>

namespace ggml_delegate {

bool broadcast_sizes(const Sizes& a, const Sizes& b, Sizes* sizes) {
  const size_t rank = std::max(a.size(), b.size());
  sizes->clear();
  for (size_t i = 0; i < rank; ++i) {
    const int64_t from_a = i + a.size() < rank ? 1 : a[i + a.size() - rank];
    const int64_t from_b = i + b.size() < rank ? 1 : b[i + b.size() - rank];
    if (from_a != from_b && from_a != 1 && from_b != 1) return false;
    sizes->push_back(from_a == 1 ? from_b : from_a);
  }
  return true;
}

StridedView with_rank(const StridedView& view, size_t rank) {
  StridedView result;
  result.base = view.base;
  result.offset = view.offset;
  for (size_t i = view.sizes.size(); i < rank; ++i) {
    result.sizes.push_back(1);
    result.strides.push_back(0);
  }
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    result.sizes.push_back(view.sizes[i]);
    result.strides.push_back(view.sizes[i] == 1 ? 0 : view.strides[i]);
  }
  return result;
}

int64_t stored_count(const StridedView& view) {
  int64_t count = 1;
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.strides[i] != 0) count *= view.sizes[i];
  }
  return count;
}

void dense_ne(const Sizes& sizes, const Order& order, int64_t (&ne)[4]) {
  std::fill(std::begin(ne), std::end(ne), int64_t{1});
  if (sizes.size() > 4) {
    ne[0] = element_count(sizes);
    return;
  }
  for (size_t i = 0; i < sizes.size(); ++i) ne[i] = sizes[order[sizes.size() - 1 - i]];
}

}  // namespace ggml_delegate
