#include "threads.h"

#include <algorithm>
#include <mutex>

// The wheel has ExecuTorch's thread pool as a library but not this header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace ggml_delegate {
namespace {

struct SharedState {
  std::mutex mutex;
  ThreadpoolPtr pool;
  int threads = 0;
};

SharedState& shared_state() {
  static SharedState state;
  return state;
}

}  // namespace

ThreadpoolPtr make_threadpool(int threads) {
  ggml_threadpool_params params = ggml_threadpool_params_default(threads);
  params.poll = 0;  // a worker that polls takes a core from XNNPACK's
  return ThreadpoolPtr(ggml_threadpool_new(&params));
}

SharedThreadpool::SharedThreadpool(int threads) {
  SharedState& state = shared_state();
  if (!state.mutex.try_lock()) return;
  if (state.threads < threads) {
    state.pool.reset();
    state.pool = make_threadpool(threads);
    state.threads = state.pool ? threads : 0;
  }
  pool_ = state.pool.get();
  if (pool_ == nullptr) state.mutex.unlock();
}

SharedThreadpool::~SharedThreadpool() {
  if (pool_ != nullptr) shared_state().mutex.unlock();
}

int default_threads() {
  const auto* pool = executorch::extension::threadpool::get_threadpool();
  const size_t count = pool == nullptr ? 1 : pool->get_thread_count();
  return static_cast<int>(std::clamp<size_t>(count, 1, kMaxThreads));
}

}  // namespace ggml_delegate
