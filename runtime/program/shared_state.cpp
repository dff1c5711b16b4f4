#include "runtime/program/shared_state.h"

#include <executorch/runtime/executor/method_meta.h>

#include <new>

#include "runtime/program/log_capture.h"

namespace orchestrator {

using executorch::runtime::Error;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;

SharedState::SharedState(const executorch::runtime::Program& program,
                         const std::vector<std::string>& method_names) {
  LogCapture log;
  size_t sharing = 0;
  std::optional<size_t> common;
  for (const std::string& name : method_names) {
    const Result<MethodMeta> meta = program.method_meta(name.c_str());
    if (!meta.ok() || meta->num_memory_planned_buffers() != kArenas) {
      continue;
    }
    const Result<int64_t> size = meta->memory_planned_buffer_size(kIndex);
    if (!size.ok() || size.get() <= 0) {
      continue;
    }
    const auto bytes = static_cast<size_t>(size.get());
    if (common.has_value() && *common != bytes) {
      return;
    }
    common = bytes;
    ++sharing;
  }
  log.take();  // a method that cannot be read says so when it is loaded
  if (sharing > 1) {
    size_ = common;
  }
}

const AlignedBuffer& SharedState::arena() {
  if (!arena_.has_value()) {
    arena_.emplace(AlignedBuffer::zeroed(size_.value_or(0)));
  }
  return *arena_;
}

bool SharedState::contains(const void* data, size_t size) const {
  if (!arena_.has_value()) {
    return false;
  }
  const auto begin = reinterpret_cast<uintptr_t>(arena_->data());
  const auto first = reinterpret_cast<uintptr_t>(data);
  return first >= begin && first - begin <= arena_->size() &&
         size <= arena_->size() - (first - begin);
}

Result<FreeableBuffer> StateLoader::load(size_t offset, size_t size,
                                         const SegmentInfo& segment_info) const {
  return loader_->load(offset, size, segment_info);
}

Error StateLoader::load_into(size_t offset, size_t size, const SegmentInfo& segment_info,
                             void* buffer) const {
  if (state_ == nullptr || !state_->contains(buffer, size)) {
    return loader_->load_into(offset, size, segment_info, buffer);
  }
  const std::pair<uintptr_t, size_t> place(reinterpret_cast<uintptr_t>(buffer), size);
  if (state_->initialised_.count(place) > 0) {
    return Error::Ok;
  }
  const Error error = loader_->load_into(offset, size, segment_info, buffer);
  if (error != Error::Ok) {
    return error;
  }
  try {  // no exception may pass ExecuTorch's frames
    state_->initialised_.insert(place);
  } catch (const std::bad_alloc&) {
    return Error::MemoryAllocationFailed;
  }
  return Error::Ok;
}

}  // namespace orchestrator
