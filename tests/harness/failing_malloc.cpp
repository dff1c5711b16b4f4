// Loaded before everything else: fails the n-th allocation that is made on behalf of the ggml
// delegate, and counts those that are still held.
#include <dlfcn.h>
#include <execinfo.h>
#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_set>

namespace {

constexpr int kDepth = 48;

thread_local bool busy = false;
std::atomic<bool> armed{false};
std::atomic<long> countdown{0};
std::atomic<long> seen{0};
const char* library_start = nullptr;
const char* library_end = nullptr;

using Malloc = void* (*)(size_t);
using Calloc = void* (*)(size_t, size_t);
using Realloc = void* (*)(void*, size_t);
using Memalign = int (*)(void**, size_t, size_t);
using Free = void (*)(void*);

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

struct Held {
  std::mutex mutex;
  std::unordered_set<void*> blocks;
};
Held& held() {
  static auto* const all = new Held;
  return *all;
}

// Whether the delegate is among the callers.
bool for_delegate() {
  void* frames[kDepth];
  const int count = backtrace(frames, kDepth);
  for (int i = 0; i < count; ++i) {
    const char* frame = static_cast<const char*>(frames[i]);
    if (frame >= library_start && frame < library_end) return true;
  }
  return false;
}

// Whether this allocation has to fail; `counts` says whether to note it.
bool fails(bool* counts) {
  *counts = false;
  if (!armed.load() || busy) return false;
  busy = true;
  *counts = for_delegate();
  busy = false;
  if (!*counts) return false;
  seen.fetch_add(1);
  return countdown.fetch_sub(1) == 1;
}

void* noted(void* block, bool counts) {
  if (block != nullptr && counts) {
    busy = true;
    const std::lock_guard<std::mutex> lock(held().mutex);
    held().blocks.insert(block);
    busy = false;
  }
  return block;
}

void forget(void* block) {
  if (block == nullptr || busy || library_start == nullptr) return;
  busy = true;
  {
    const std::lock_guard<std::mutex> lock(held().mutex);
    held().blocks.erase(block);
  }
  busy = false;
}

}  // namespace

extern "C" {

// Addresses of the delegate's code.
void watch(const char* start, const char* end) {
  busy = true;
  void* warm[4];
  backtrace(warm, 4);  // loads the unwinder
  held();
  busy = false;
  library_start = start;
  library_end = end;
}
// Fails allocation number n from now on (0: none) and counts them.
void arm(long n) {
  countdown.store(n);
  seen.store(0);
  armed.store(true);
}
// How many there were.
long disarm() {
  armed.store(false);
  return seen.load();
}
long held_blocks() {
  const std::lock_guard<std::mutex> lock(held().mutex);
  return static_cast<long>(held().blocks.size());
}

void* malloc(size_t bytes) {
  static const auto real = next<Malloc>("malloc");
  bool counts = false;
  if (fails(&counts)) {
    errno = ENOMEM;
    return nullptr;
  }
  return noted(real(bytes), counts);
}

void* calloc(size_t count, size_t bytes) {
  // dlsym() itself may call calloc before the real one is known.
  static char early[4096];
  static size_t used = 0;
  static thread_local bool looking = false;
  static Calloc real = nullptr;
  if (real == nullptr) {
    if (looking) {
      void* block = early + used;
      used += (count * bytes + 15) / 16 * 16;
      return block;
    }
    looking = true;
    real = next<Calloc>("calloc");
    looking = false;
  }
  bool counts = false;
  if (fails(&counts)) {
    errno = ENOMEM;
    return nullptr;
  }
  return noted(real(count, bytes), counts);
}

void* realloc(void* block, size_t bytes) {
  static const auto real = next<Realloc>("realloc");
  bool counts = false;
  if (fails(&counts)) {
    errno = ENOMEM;
    return nullptr;
  }
  void* moved = real(block, bytes);
  if (moved != nullptr) forget(block);
  return noted(moved, counts);
}

int posix_memalign(void** block, size_t alignment, size_t bytes) {
  static const auto real = next<Memalign>("posix_memalign");
  bool counts = false;
  if (fails(&counts)) return ENOMEM;
  const int error = real(block, alignment, bytes);
  if (error == 0) noted(*block, counts);
  return error;
}

void free(void* block) {
  static const auto real = next<Free>("free");
  forget(block);
  real(block);
}
}
