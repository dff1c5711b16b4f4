#include "guard.h"

#include <ggml.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace ggml_delegate {
namespace {

thread_local GgmlScope* innermost = nullptr;
ggml_abort_callback_t previous_callback = nullptr;

// Called by ggml_abort(), which aborts if this returns.
void on_abort(const char* message) {
  if (innermost != nullptr) {
    GgmlFailure failure;
    std::snprintf(failure.message, sizeof(failure.message), "%s", message);
    throw failure;
  }
  if (previous_callback != nullptr) {
    previous_callback(message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
}

const bool installed = [] {
  previous_callback = ggml_set_abort_callback(on_abort);
  return true;
}();

}  // namespace

GgmlScope::GgmlScope() : outer_(innermost) { innermost = this; }

GgmlScope::~GgmlScope() {
  innermost = outer_;
  for (const Block& block : blocks_) std::free(block.start);
}

GgmlScope* GgmlScope::current() { return innermost; }

void GgmlScope::check_room(size_t bytes) const {
  check_memory_limit(bytes > std::numeric_limits<size_t>::max() - bytes_
                         ? std::numeric_limits<size_t>::max()
                         : bytes + bytes_);
}

void GgmlScope::add(void* block, size_t bytes) {
  blocks_.push_back({block, bytes});
  bytes_ += bytes;
}

void GgmlScope::remove(void* block) {
  for (size_t i = blocks_.size(); i-- > 0;) {
    if (blocks_[i].start == block) {
      bytes_ -= blocks_[i].bytes;
      blocks_[i] = blocks_.back();
      blocks_.pop_back();
      return;
    }
  }
}

namespace {

std::atomic<size_t>& limit() {
  static std::atomic<size_t> bytes = [] {
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page <= 0) return std::numeric_limits<size_t>::max() / 2;
    return static_cast<size_t>(pages) * static_cast<size_t>(page);
  }();
  return bytes;
}

}  // namespace

size_t memory_limit() { return limit(); }

void set_memory_limit(size_t bytes) { limit() = bytes; }

void check_memory_limit(size_t bytes) {
  if (bytes <= memory_limit()) return;
  ET_LOG(Error, "ggml: a partition asks for %zu bytes of memory; the limit is %zu", bytes,
         memory_limit());
  throw std::bad_alloc();
}

}  // namespace ggml_delegate

#ifdef GGD_WRAPS_MALLOC

// The linker sends ggml's calls here (--wrap, see cmake/Targets.cmake). Nothing else in this
// library calls malloc: C++ goes through operator new.
extern "C" {

void* __real_malloc(size_t bytes);
void* __real_calloc(size_t count, size_t bytes);
void* __real_realloc(void* block, size_t bytes);
int __real_posix_memalign(void** block, size_t alignment, size_t bytes);
void __real_free(void* block);

void* __wrap_malloc(size_t bytes);
void* __wrap_calloc(size_t count, size_t bytes);
void* __wrap_realloc(void* block, size_t bytes);
int __wrap_posix_memalign(void** block, size_t alignment, size_t bytes);
void __wrap_free(void* block);
}

namespace {

using ggml_delegate::GgmlScope;

// Hands a new block over to the scope, or frees it and throws.
void* kept(GgmlScope* scope, void* block, size_t bytes) {
  if (block == nullptr) throw std::bad_alloc();
  try {
    scope->add(block, bytes);
  } catch (...) {
    __real_free(block);
    throw;
  }
  return block;
}

}  // namespace

extern "C" {

void* __wrap_malloc(size_t bytes) {
  GgmlScope* scope = GgmlScope::current();
  if (scope == nullptr) return __real_malloc(bytes);
  scope->check_room(bytes);
  return kept(scope, __real_malloc(bytes == 0 ? 1 : bytes), bytes);
}

void* __wrap_calloc(size_t count, size_t bytes) {
  GgmlScope* scope = GgmlScope::current();
  if (scope == nullptr) return __real_calloc(count, bytes);
  size_t total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) throw std::bad_alloc();
  scope->check_room(total);
  return kept(scope, __real_calloc(total == 0 ? 1 : total, 1), total);
}

void* __wrap_realloc(void* block, size_t bytes) {
  GgmlScope* scope = GgmlScope::current();
  if (scope == nullptr) return __real_realloc(block, bytes);
  scope->check_room(bytes);
  void* moved = __real_realloc(block, bytes);
  if (moved == nullptr) throw std::bad_alloc();
  scope->remove(block);
  return kept(scope, moved, bytes);
}

int __wrap_posix_memalign(void** block, size_t alignment, size_t bytes) {
  GgmlScope* scope = GgmlScope::current();
  if (scope == nullptr) return __real_posix_memalign(block, alignment, bytes);
  scope->check_room(bytes);
  void* made = nullptr;
  if (__real_posix_memalign(&made, alignment, bytes) != 0) throw std::bad_alloc();
  *block = kept(scope, made, bytes);
  return 0;
}

void __wrap_free(void* block) {
  GgmlScope* scope = GgmlScope::current();
  if (scope != nullptr && block != nullptr) scope->remove(block);
  __real_free(block);
}
}

#endif
