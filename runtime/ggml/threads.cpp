#include "threads.h"

#include <algorithm>

// The wheel has ExecuTorch's thread pool as a library but not this header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  void run(executorch::runtime::FunctionRef<void(size_t)> function, size_t range);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace ggml_delegate {
namespace {

// ThreadSanitizer does not see how ExecuTorch's pool, which is not instrumented, hands work over.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
void happens_before(void* address) { __tsan_release(address); }
void happens_after(void* address) { __tsan_acquire(address); }
#else
void happens_before(void* /*address*/) {}
void happens_after(void* /*address*/) {}
#endif

// Not in parallel()'s frame: a worker has to acquire before it reads that.
char given = 0;
char done = 0;

}  // namespace

using executorch::extension::threadpool::get_threadpool;

ThreadpoolPtr make_single_thread() {
  ggml_threadpool_params params = ggml_threadpool_params_default(1);
  params.poll = 0;
  return ThreadpoolPtr(ggml_threadpool_new(&params));
}

void parallel(int parts, executorch::runtime::FunctionRef<void(int)> part) {
  auto* pool = parts > 1 ? get_threadpool() : nullptr;
  if (pool == nullptr) {
    for (int i = 0; i < parts; ++i) part(i);
    return;
  }
  const auto numbered = [&](size_t i) {
    happens_after(&given);
    part(static_cast<int>(i));
    happens_before(&done);
  };
  // Workers read both of these, so both have to be written before the work is given.
  const executorch::runtime::FunctionRef<void(size_t)> work(numbered);
  happens_before(&given);
  pool->run(work, static_cast<size_t>(parts));
  happens_after(&done);
}

int default_threads() {
  const auto* pool = get_threadpool();
  const size_t count = pool == nullptr ? 1 : pool->get_thread_count();
  return static_cast<int>(std::clamp<size_t>(count, 1, kMaxThreads));
}

}  // namespace ggml_delegate
