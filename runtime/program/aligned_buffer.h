// Memory for tensors.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace orchestrator {

// An owned block of bytes, aligned for any vector instruction. Movable.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  // At least one byte is allocated, so that data() is never null. Throws std::bad_alloc.
  explicit AlignedBuffer(size_t size);
  // All zero; pages that are never written cost no memory.
  static AlignedBuffer zeroed(size_t size);

  std::byte* data() const;
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  AlignedBuffer(void* block, size_t size);

  std::unique_ptr<void, Free> block_;
  size_t size_ = 0;
};

}  // namespace orchestrator
