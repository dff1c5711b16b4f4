#include "arena.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

namespace ggml_delegate {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void ArenaDeleter::operator()(void* data) const { ::operator delete(data, kAlignment); }

std::shared_ptr<ArenaPool> ArenaPool::of_process() {
  static std::mutex mutex;
  static std::weak_ptr<ArenaPool> current;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<ArenaPool> pool = current.lock();
  if (pool == nullptr) {
    pool = std::make_shared<ArenaPool>();
    current = pool;
  }
  return pool;
}

Result<ArenaPool::Lease> ArenaPool::lease(size_t bytes) {
  Arena arena;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.reserve(idle_.size() + in_use_ + 1);  // giving back must not need memory
    ++in_use_;
    if (!idle_.empty()) {
      arena = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  Lease lease(shared_from_this(), std::move(arena));
  GGD_CHECK_OR(MemoryAllocationFailed, lease.grow(bytes), "no memory for %zu bytes of activations",
               bytes);
  return lease;
}

void ArenaPool::give_back(Arena arena) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  --in_use_;
  if (arena.data == nullptr) return;
  // The largest at the back: what runs next finds room in it.
  const auto place =
      std::upper_bound(idle_.begin(), idle_.end(), arena,
                       [](const Arena& a, const Arena& b) { return a.size < b.size; });
  idle_.insert(place, std::move(arena));
}

bool ArenaPool::Lease::grow(size_t bytes) {
  if (arena_.size >= bytes) return true;
  arena_.data.reset();  // before the larger one is there, to need less at once
  arena_.data.reset(::operator new(bytes, kAlignment, std::nothrow));
  arena_.size = arena_.data == nullptr ? 0 : bytes;
  return arena_.data != nullptr;
}

ArenaPool::Lease::~Lease() {
  if (pool_ != nullptr) pool_->give_back(std::move(arena_));
}

}  // namespace ggml_delegate
