// Sizes and dim orders: small vectors that never allocate.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "ir_generated.h"

namespace ggml_delegate {

inline constexpr size_t kMaxRank = static_cast<size_t>(ir::Limit_Rank);
// Bounds what any file may ask for, and keeps every byte count far from overflow.
inline constexpr int64_t kMaxElements = int64_t{1} << 40;

template <typename T>
class RankVector {
 public:
  RankVector() = default;
  RankVector(std::initializer_list<T> values) {
    for (const T value : values) push_back(value);
  }
  // The caller keeps size() <= kMaxRank; a further element is dropped.
  void push_back(T value) {
    if (size_ < kMaxRank) data_[size_++] = value;
  }
  void clear() { size_ = 0; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T& back() { return data_[size_ - 1]; }
  const T* begin() const { return data_.data(); }
  const T* end() const { return data_.data() + size_; }
  bool operator==(const RankVector& other) const {
    if (size_ != other.size_) return false;
    for (size_t i = 0; i < size_; ++i) {
      if (data_[i] != other.data_[i]) return false;
    }
    return true;
  }
  bool operator!=(const RankVector& other) const { return !(*this == other); }

 private:
  std::array<T, kMaxRank> data_{};
  size_t size_ = 0;
};

// Sizes in torch order, outermost first.
using Sizes = RankVector<int64_t>;
// A dim order: physical position (outermost first) -> dimension.
using Order = RankVector<uint8_t>;

inline Order identity_order(size_t rank) {
  Order order;
  for (size_t i = 0; i < rank; ++i) order.push_back(static_cast<uint8_t>(i));
  return order;
}

// [0, 2, ..., rank - 1, 1]; the identity below rank 3.
inline Order channels_last_order(size_t rank) {
  if (rank < 3) return identity_order(rank);
  Order order{0};
  for (size_t i = 2; i < rank; ++i) order.push_back(static_cast<uint8_t>(i));
  order.push_back(1);
  return order;
}

inline bool is_order(const Order& order, size_t rank) {
  if (order.size() != rank) return false;
  uint32_t seen = 0;
  for (const uint8_t dim : order) {
    if (dim >= rank || (seen >> dim & 1U) != 0) return false;
    seen |= 1U << dim;
  }
  return true;
}

// The sizes in the sequence they have in memory.
inline Sizes physical_sizes(const Sizes& sizes, const Order& order) {
  Sizes physical;
  for (const uint8_t dim : order) physical.push_back(sizes[dim]);
  return physical;
}

inline int64_t element_count(const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return count;
}

// Whether both orders put the elements of a tensor of these sizes in the same places: dimensions
// of size 1 may stand anywhere.
inline bool same_layout(const Sizes& sizes, const Order& a, const Order& b) {
  size_t i = 0;
  size_t j = 0;
  for (;;) {
    while (i < a.size() && sizes[a[i]] == 1) ++i;
    while (j < b.size() && sizes[b[j]] == 1) ++j;
    if (i == a.size() || j == b.size()) return i == a.size() && j == b.size();
    if (a[i++] != b[j++]) return false;
  }
}

}  // namespace ggml_delegate
