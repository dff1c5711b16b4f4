#include "runtime/program/threads.h"

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

// Exported by ExecuTorch's thread pool library; their headers are not among the installed ones.
struct pthreadpool;
extern "C" size_t pthreadpool_get_threads_count(pthreadpool* pool);
// Limits the pool to at most the number it was created with. Waits for a running computation.
extern "C" size_t pthreadpool_set_threads_count(pthreadpool* pool, size_t count);
namespace executorch::extension::threadpool {
pthreadpool* get_pthreadpool();
}  // namespace executorch::extension::threadpool

namespace orchestrator {
namespace {

using executorch::extension::threadpool::get_pthreadpool;
using executorch::extension::threadpool::NoThreadPoolGuard;

// Lets any number of runs use the pool at one size.
class PoolLease {
 public:
  void acquire(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    pthreadpool* pool = get_pthreadpool();
    const auto fits = [&] { return pthreadpool_get_threads_count(pool) == count; };
    idle_.wait(lock, [&] { return users_ == 0 || fits(); });
    if (!fits()) {
      pthreadpool_set_threads_count(pool, count);
    }
    ++users_;
  }

  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--users_ == 0) {
      idle_.notify_all();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  int users_ = 0;
};

PoolLease& pool_lease() {
  static PoolLease lease;
  return lease;
}

}  // namespace

ThreadLimit::ThreadLimit(int requested) : is_explicit_(requested > 0) {
  const int available = static_cast<int>(executorch::extension::get_thread_count());
  count_ = std::max(is_explicit_ ? std::min(requested, available) : available, 1);
}

ThreadLimit::Scope::Scope(const ThreadLimit& limit) : single_(limit.count() == 1) {
  if (single_) {
    previous_ = NoThreadPoolGuard::is_enabled();
    NoThreadPoolGuard::set_enabled(true);
  } else {
    pool_lease().acquire(static_cast<size_t>(limit.count()));
  }
}

ThreadLimit::Scope::~Scope() {
  if (single_) {
    NoThreadPoolGuard::set_enabled(previous_);
  } else {
    pool_lease().release();
  }
}

}  // namespace orchestrator
