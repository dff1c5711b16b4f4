// Keeps what fails inside ggml from ending the process.
//
// ggml aborts where an assertion fails or memory runs out, and does not check every allocation.
// Everything that calls it runs inside guarded(): there, ggml's failed assertions and failed
// allocations become exceptions, which guarded() makes Errors, and memory that ggml had taken and
// could not give back on the way out is freed.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "log.h"

namespace ggml_delegate {

// A failed assertion of ggml.
struct GgmlFailure {
  char message[256];
};

// What ggml allocates in this thread while this object lives, unless a newer one does.
class GgmlScope {
 public:
  GgmlScope();
  // Frees what ggml has allocated and not freed, unless keep() was called.
  ~GgmlScope();
  GgmlScope(const GgmlScope&) = delete;
  GgmlScope& operator=(const GgmlScope&) = delete;

  void keep() { blocks_.clear(); }

  // For the wrapped allocators. Throws std::bad_alloc when `bytes` more would be too many.
  static GgmlScope* current();
  void check_room(size_t bytes) const;
  void add(void* block, size_t bytes);
  void remove(void* block);

 private:
  struct Block {
    void* start;
    size_t bytes;
  };
  std::vector<Block> blocks_;
  size_t bytes_ = 0;
  GgmlScope* outer_;
};

// How many bytes one partition may ask for at a time: what the machine has, unless set.
size_t memory_limit();
void set_memory_limit(size_t bytes);

// Throws std::bad_alloc, after a log line that names the limit, when a partition asks for more.
void check_memory_limit(size_t bytes);

// Runs `work`, which returns an Error or a Result.
template <typename Work>
auto guarded(const Work& work) -> decltype(work()) {
  GgmlScope scope;
  try {
    auto result = work();
    scope.keep();
    return result;
  } catch (const std::bad_alloc&) {
    ET_LOG(Error, "ggml: out of memory");
    return Error::MemoryAllocationFailed;
  } catch (const GgmlFailure& failure) {
    ET_LOG(Error, "ggml: %s", failure.message);
    return Error::Internal;
  }
}

}  // namespace ggml_delegate
