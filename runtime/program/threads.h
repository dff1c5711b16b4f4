// How many threads a program computes with.
#pragma once

#include <cstddef>

namespace orchestrator {

// ExecuTorch has one thread pool per process; delegates bind to it as they load and use it as
// they run. A limit applies to one program all the same:
// - 1: load and run without the pool, independently of everything else in the process;
// - n > 1: run while the pool is limited to n. Runs with the same number go on at once, a run
//   with another number waits for them. XNNPACK sizes its scratch memory by the pool before it
//   computes, so the pool must not change under a run;
// - 0: like n > 1 with the pool's full size, which is the number of processors.
// Numbers above the pool's size mean the pool's size.
class ThreadLimit {
 public:
  // `requested` is not negative.
  explicit ThreadLimit(int requested);

  // Threads that a run uses, at least 1.
  int count() const { return count_; }
  // Whether the caller asked for a number.
  bool is_explicit() const { return is_explicit_; }

  // Applies a limit on the calling thread: take one around loading and around each run.
  class Scope {
   public:
    explicit Scope(const ThreadLimit& limit);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const bool single_;
    bool previous_ = false;
  };

 private:
  int count_;
  bool is_explicit_;
};

}  // namespace orchestrator
