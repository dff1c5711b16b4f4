#include "runtime/program/aligned_buffer.h"

#include <cstdint>
#include <limits>
#include <new>

namespace orchestrator {
namespace {

// `size` with room to align, or bad_alloc when that is no size.
size_t padded(size_t size) {
  if (size >
      static_cast<size_t>(std::numeric_limits<ptrdiff_t>::max()) - AlignedBuffer::kAlignment) {
    throw std::bad_alloc();
  }
  return size + AlignedBuffer::kAlignment;
}

}  // namespace

AlignedBuffer::AlignedBuffer(void* block, size_t size) : block_(block), size_(size) {
  if (block == nullptr) {
    throw std::bad_alloc();
  }
}

AlignedBuffer::AlignedBuffer(size_t size) : AlignedBuffer(std::malloc(padded(size)), size) {}

AlignedBuffer AlignedBuffer::zeroed(size_t size) {
  return AlignedBuffer(std::calloc(padded(size), 1), size);
}

std::byte* AlignedBuffer::data() const {
  const auto address = reinterpret_cast<uintptr_t>(block_.get());
  return reinterpret_cast<std::byte*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace orchestrator
