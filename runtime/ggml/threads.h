// Threads: the kernels of a graph share ExecuTorch's thread pool with XNNPACK and its own kernels.
//
// ggml's workers would wait for each other by spinning, which on a machine that anything else uses
// costs far more than the work. So ggml walks the graph on the calling thread alone, and each
// kernel is split over the pool, whose threads sleep when there is nothing to do.
#pragma once

#include <ggml-cpu.h>

#include <executorch/runtime/core/function_ref.h>

#include <memory>

#include "log.h"

namespace ggml_delegate {

struct ThreadpoolDeleter {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
using ThreadpoolPtr = std::unique_ptr<ggml_threadpool, ThreadpoolDeleter>;

// What ggml needs to compute on the calling thread; it starts no thread. Null without memory.
ThreadpoolPtr make_single_thread();

// Calls part(0) ... part(parts - 1), at once as far as ExecuTorch's thread pool has threads.
void parallel(int parts, executorch::runtime::FunctionRef<void(int)> part);

// The number of threads of ExecuTorch's thread pool, at least 1.
int default_threads();

inline constexpr int kMaxThreads = 256;

}  // namespace ggml_delegate
