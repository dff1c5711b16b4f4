// One loaded method: its memory, its inputs and its outputs.
#pragma once

#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/program/aligned_buffer.h"
#include "runtime/program/shared_state.h"
#include "runtime/program/tensor.h"

namespace orchestrator {

// Not thread-safe.
class LoadedMethod {
 public:
  // `source` names the program in errors, `state` is what its methods share; program, source,
  // state, options and tracer must outlive the method. Throws ProgramError.
  LoadedMethod(const executorch::runtime::Program& program, const std::string& source,
               const std::string& name, SharedState& state,
               const executorch::runtime::LoadBackendOptionsMap& backend_options,
               executorch::runtime::EventTracer* tracer);

  const MethodInfo& info() const { return info_; }

  // Throws InputTypeError and InputValueError, naming method, input, found and expected; nothing
  // has run then. Inputs are read in place where the memory plan leaves them out, else copied.
  void set_inputs(const std::vector<Input>& inputs);
  // Reads all inputs and outputs, which brings them into the caches: each in equal parts into those
  // of the processors that the threads run on. Throws ProgramError.
  void read_memory();
  // Throws ProgramError. The inputs' memory must still be there.
  void execute();
  // The outputs of the last execute(), to be called once for each.
  std::vector<Output> take_outputs();

  // The memory of its tensors, mutable buffers among them, but for what methods share.
  const std::vector<AlignedBuffer>& memory() const { return arenas_; }

 private:
  // How an output reaches its caller.
  enum class Route {
    kCopied,   // from the method's memory, a constant or an input
    kWritten,  // by the method, into the caller's new buffer
    kTrimmed,  // by the method into scratch_, then copied at its actual size
  };

  void check_backends(const executorch::runtime::MethodMeta& meta);
  void plan_memory(const executorch::runtime::MethodMeta& meta, SharedState& state);
  const AlignedBuffer& arena(size_t index, size_t count, size_t size, SharedState& state);
  void load(const executorch::runtime::Program& program,
            const executorch::runtime::LoadBackendOptionsMap& backend_options,
            executorch::runtime::EventTracer* tracer);
  void finish_info();
  void route_outputs();

  void check_tensor(size_t index, const Input& input) const;
  void check_scalar(size_t index, const Input& input) const;
  void set_input(size_t index, const Input& input);
  executorch::runtime::Error set_scalar(size_t index, const Scalar& scalar);
  AlignedBuffer allocate_output(size_t index, size_t size) const;
  void bind_output(size_t index, std::byte* data, size_t size);
  Output take_output(size_t index);
  // "'file': method 'forward'" and, with an index, ", input 2"
  std::string where() const;
  std::string where_input(size_t index) const;
  [[noreturn]] void fail(const std::string& what, executorch::runtime::Error error,
                         std::vector<std::string> log = {}) const;

  const std::string& source_;
  MethodInfo info_;
  std::vector<AlignedBuffer> arenas_;  // the method's own
  std::vector<executorch::runtime::Span<uint8_t>> arena_spans_;
  std::optional<executorch::runtime::HierarchicalAllocator> planned_memory_;
  executorch::extension::MallocMemoryAllocator method_allocator_;
  executorch::extension::MallocMemoryAllocator temp_allocator_;
  std::optional<executorch::runtime::MemoryManager> memory_manager_;
  std::optional<executorch::runtime::Method> method_;
  std::vector<Route> routes_;
  std::vector<AlignedBuffer> scratch_;  // one per output; empty unless trimmed
  std::vector<AlignedBuffer> written_;  // one per output; empty unless written
  std::vector<int32_t> sizes_;          // of the input being set
};

// A method's metadata, without loading it. Whether a tensor's shape is dynamic and the values of
// scalars are known only to a loaded method. Throws ProgramError.
MethodInfo read_method_info(const executorch::runtime::MethodMeta& meta, const std::string& source);

}  // namespace orchestrator
