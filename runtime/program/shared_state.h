// Memory that the methods of a program share: what one method writes there, the others read.
#pragma once

#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/program.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/program/aligned_buffer.h"

namespace orchestrator {

// The arena of mutable buffers, as ExecuTorch plans it with share_mutable_buffers: the second one
// of each method, of one size in all. A program does not say what its arenas are for, so two
// methods or more with just two arenas, the second ones of one size, are taken for methods that
// share it. It is zero at first, and lives as long as this.
class SharedState {
 public:
  SharedState(const executorch::runtime::Program& program,
              const std::vector<std::string>& method_names);

  // Whether a method of `arenas` arenas has the shared one at `index`.
  bool holds(size_t index, size_t arenas) const {
    return size_.has_value() && arenas == kArenas && index == kIndex;
  }
  // Allocates it when first asked for. Throws std::bad_alloc.
  const AlignedBuffer& arena();
  // The arena, if it was asked for.
  const std::optional<AlignedBuffer>& allocated() const { return arena_; }

 private:
  friend class StateLoader;
  static constexpr size_t kArenas = 2;
  static constexpr size_t kIndex = 1;

  // Whether [data, data + size) is part of the arena.
  bool contains(const void* data, size_t size) const;

  std::optional<size_t> size_;  // none if nothing is shared
  std::optional<AlignedBuffer> arena_;
  std::set<std::pair<uintptr_t, size_t>> initialised_;  // address and size of each buffer
};

// Loads as another loader does, but sets each buffer of the shared state once: every method that is
// loaded asks for the initial values of all that it names, and would undo what others have written.
class StateLoader : public executorch::runtime::DataLoader {
 public:
  explicit StateLoader(std::unique_ptr<executorch::runtime::DataLoader> loader)
      : loader_(std::move(loader)) {}

  // From now on; `state` must outlive all loads. Loads into it must not overlap in time.
  void guard(SharedState* state) { state_ = state; }

  executorch::runtime::Result<executorch::runtime::FreeableBuffer> load(
      size_t offset, size_t size, const SegmentInfo& segment_info) const override;
  executorch::runtime::Error load_into(size_t offset, size_t size, const SegmentInfo& segment_info,
                                       void* buffer) const override;
  executorch::runtime::Result<size_t> size() const override { return loader_->size(); }

 private:
  const std::unique_ptr<executorch::runtime::DataLoader> loader_;
  SharedState* state_ = nullptr;
};

}  // namespace orchestrator
