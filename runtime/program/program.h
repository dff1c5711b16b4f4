// An ExecuTorch program (.pte): loading, metadata, running.
#pragma once

#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/program.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/program/delegate_options.h"
#include "runtime/program/method.h"
#include "runtime/program/shared_state.h"
#include "runtime/program/tensor.h"
#include "runtime/program/threads.h"
#include "runtime/program/value_recorder.h"

namespace orchestrator {

struct LoadOptions {
  int num_threads = 0;  // see ThreadLimit
  bool etdump = false;  // record a profile of loading and running methods
  bool values = false;  // and what every delegate call and kernel takes and gives
  std::vector<DelegateOption> delegate_options = {};
};

// What a run cost, in nanoseconds of wall time.
struct RunTimes {
  int64_t execute_ns = 0;  // the method itself
  int64_t total_ns = 0;    // with inputs checked and handed over, and outputs collected
};

// How a method finds the memory that it computes in.
enum class Memory {
  kAsLeft,   // in the caches or not, as whatever ran before left it
  kInCache,  // as an op finds it inside a program, where another op has just used it
};

// What runs leave behind for the next: copies of the memory of each method's tensors, mutable
// buffers among them, and of what methods share.
struct State {
  std::optional<std::vector<std::byte>> shared;  // none if nothing is shared
  std::map<std::string, std::vector<std::byte>> methods;
};

// All members may be called from any thread. Runs of one program go one after another; different
// programs run at once. Methods load when they are first needed and stay loaded. State that methods
// share lives as long as the program: unloading them does not reset it.
class Program {
 public:
  // Maps a file; the file must not change while the program is alive.
  // Throws ProgramError, for an unreadable, truncated or corrupt file.
  static std::unique_ptr<Program> from_file(const std::string& path, const LoadOptions& options);
  // Uses bytes in place; `owner` keeps them alive and unchanged. Bytes that are not aligned to
  // 16 are copied. Throws ProgramError.
  static std::unique_ptr<Program> from_bytes(std::shared_ptr<const void> owner, const void* data,
                                             size_t size, const LoadOptions& options);

  const std::vector<std::string>& method_names() const { return method_names_; }
  // Methods that call delegates which cannot be used here, with the methods that run in their
  // place: for "name", that is "name__fallback", if the program has it. All functions below that
  // are given "name" then mean its fallback, but for peek().
  std::map<std::string, std::string> fallbacks() const;
  int num_threads() const { return threads_.count(); }
  // Where the program comes from, for messages.
  const std::string& source() const { return source_; }

  // Metadata without loading the method: see read_method_info(). Throws ProgramError, and
  // InputValueError for an unknown name, as do the next three.
  MethodInfo peek(const std::string& name) const;
  // Loads the method first.
  MethodInfo method(const std::string& name);
  // Runs a method. Throws InputTypeError and InputValueError too.
  std::vector<Output> run(const std::string& name, const std::vector<Input>& inputs,
                          RunTimes* times = nullptr, Memory memory = Memory::kAsLeft);
  // Loads all methods. Throws ProgramError if one cannot be loaded, and std::bad_alloc.
  State state();
  // Puts back what state() returned, here or in another process with the same program. Throws
  // InputValueError, before anything changes, for the state of another program, and as state().
  void restore(const State& state);
  // Gives all mutable buffers their first values: unloads all methods, and forgets what they share.
  void reset();
  // Frees a method's memory and delegates, and its state, but for what methods share; does nothing
  // if it is not loaded.
  void unload(const std::string& name);

  // The profile recorded since the last call, in ExecuTorch's ETDump format; empty if nothing ran.
  // Throws InputValueError if the program was not loaded to record one.
  std::vector<uint8_t> take_etdump();
  // The values recorded since the last call, in the order of the calls.
  // Throws InputValueError if the program was not loaded to record them.
  std::vector<RecordedValue> take_values();

 private:
  Program(std::string source, std::unique_ptr<executorch::runtime::DataLoader> loader,
          std::shared_ptr<const void> owner, const LoadOptions& options);
  // The fallback of a method that has one and needs it, or the method itself.
  std::string in_place_of(const std::string& name) const;
  // Without fallbacks that are not needed, and without what those that are stand for.
  std::vector<std::string> methods_in_use() const;
  LoadedMethod& loaded(const std::string& name);
  void check_state(const std::string& what, size_t found, size_t expected) const;
  void check_name(const std::string& name) const;

  const std::string source_;
  const std::shared_ptr<const void> owner_;
  StateLoader loader_;
  const ThreadLimit threads_;
  std::optional<executorch::runtime::Program> program_;
  std::vector<std::string> method_names_;
  DelegateOptions delegate_options_;
  std::unique_ptr<executorch::etdump::ETDumpGen> tracer_;
  ValueRecorder* recorder_ = nullptr;  // tracer_, if it records values
  std::mutex mutex_;                   // guards all below, and tracer_
  std::optional<SharedState> state_;
  std::map<std::string, std::unique_ptr<LoadedMethod>> methods_;
};

}  // namespace orchestrator
