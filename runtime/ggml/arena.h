// Memory for activations, shared by all partitions that never run at once.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "log.h"

namespace ggml_delegate {

struct ArenaDeleter {
  void operator()(void* data) const;
};

struct Arena {
  std::unique_ptr<void, ArenaDeleter> data;
  size_t size = 0;
};

// Arenas that are not in use. A computation leases one and gives it back: calls one after another,
// of one program or of several, get the same memory, calls at once different ones. Thread-safe.
class ArenaPool : public std::enable_shared_from_this<ArenaPool> {
 public:
  // The process's pool; its memory is freed when nobody holds it any more.
  static std::shared_ptr<ArenaPool> of_process();

  // An arena while it is in use.
  class Lease {
   public:
    Lease(std::shared_ptr<ArenaPool> pool, Arena arena)
        : pool_(std::move(pool)), arena_(std::move(arena)) {}
    ~Lease();
    Lease(Lease&&) = default;
    Lease& operator=(Lease&&) = delete;
    std::byte* data() const { return static_cast<std::byte*>(arena_.data.get()); }

   private:
    friend class ArenaPool;
    bool grow(size_t bytes);  // false: there is no memory

    std::shared_ptr<ArenaPool> pool_;  // null once moved from
    Arena arena_;
  };

  // Memory of at least `bytes`, aligned to 64. Allocates only if no idle arena is that large.
  // Errors: MemoryAllocationFailed; throws std::bad_alloc without memory for the list of arenas.
  Result<Lease> lease(size_t bytes);

 private:
  void give_back(Arena arena) noexcept;

  std::mutex mutex_;
  std::vector<Arena> idle_;  // the one to take next at the back; has room for those in use
  size_t in_use_ = 0;
};

}  // namespace ggml_delegate
