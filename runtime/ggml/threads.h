// Who computes a ggml graph: the calling thread alone, or one worker pool for the process.
#pragma once

#include <ggml-cpu.h>

#include <memory>

#include "log.h"

namespace ggml_delegate {

struct ThreadpoolDeleter {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
using ThreadpoolPtr = std::unique_ptr<ggml_threadpool, ThreadpoolDeleter>;

// A ggml thread pool of `threads` threads, the caller's included, whose workers sleep between
// graphs. Null when threads cannot be had.
ThreadpoolPtr make_threadpool(int threads);

// Exclusive use of the process's worker pool, for one graph computation. One pool for all
// delegates, so that programs on several threads never run more workers than one would. When
// another computation has it, get() is null: the caller then computes alone.
class SharedThreadpool {
 public:
  explicit SharedThreadpool(int threads);
  ~SharedThreadpool();
  SharedThreadpool(const SharedThreadpool&) = delete;
  SharedThreadpool& operator=(const SharedThreadpool&) = delete;
  ggml_threadpool* get() const { return pool_; }

 private:
  ggml_threadpool* pool_ = nullptr;
};

// The number of threads of ExecuTorch's thread pool, at least 1.
int default_threads();

inline constexpr int kMaxThreads = 256;

}  // namespace ggml_delegate
