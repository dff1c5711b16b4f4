#include "runtime/program/program.h"

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <numeric>
#include <set>
#include <utility>

#include "runtime/program/backends.h"
#include "runtime/program/errors.h"
#include "runtime/program/log_capture.h"

namespace orchestrator {
namespace {

using executorch::extension::BufferDataLoader;
using executorch::extension::MmapDataLoader;
using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::Result;

constexpr char kFallback[] = "__fallback";  // what orchestrator.fallback puts after a method's name
constexpr size_t kProgramAlignment = 16;    // what ExecuTorch demands of a program's first byte

int64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

size_t total_size(const std::vector<AlignedBuffer>& blocks) {
  return std::accumulate(
      blocks.begin(), blocks.end(), size_t{0},
      [](size_t size, const AlignedBuffer& block) { return size + block.size(); });
}

std::vector<std::byte> joined(const std::vector<AlignedBuffer>& blocks) {
  std::vector<std::byte> bytes;
  bytes.reserve(total_size(blocks));
  for (const AlignedBuffer& block : blocks) {
    bytes.insert(bytes.end(), block.data(), block.data() + block.size());
  }
  return bytes;
}

}  // namespace

std::unique_ptr<Program> Program::from_file(const std::string& path, const LoadOptions& options) {
  executorch::runtime::runtime_init();
  LogCapture log;
  Result<MmapDataLoader> loader =
      MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::NoMlock);
  if (!loader.ok()) {
    throw ProgramError("'" + path + "' cannot be opened", loader.error(), log.take());
  }
  return std::unique_ptr<Program>(
      new Program("'" + path + "'", std::make_unique<MmapDataLoader>(std::move(loader.get())),
                  nullptr, options));
}

std::unique_ptr<Program> Program::from_bytes(std::shared_ptr<const void> owner, const void* data,
                                             size_t size, const LoadOptions& options) {
  executorch::runtime::runtime_init();
  const LogCapture log;
  if (reinterpret_cast<uintptr_t>(data) % kProgramAlignment != 0) {
    auto copy = std::make_shared<AlignedBuffer>(size);
    std::memcpy(copy->data(), data, size);
    data = copy->data();
    owner = std::move(copy);
  }
  return std::unique_ptr<Program>(new Program("program of " + std::to_string(size) + " bytes",
                                              std::make_unique<BufferDataLoader>(data, size),
                                              std::move(owner), options));
}

Program::Program(std::string source, std::unique_ptr<DataLoader> loader,
                 std::shared_ptr<const void> owner, const LoadOptions& options)
    : source_(std::move(source)),
      owner_(std::move(owner)),
      loader_(std::move(loader)),
      threads_(options.num_threads) {
  LogCapture log;
  using Verification = executorch::runtime::Program::Verification;
  Result<executorch::runtime::Program> program =
      executorch::runtime::Program::load(&loader_, Verification::InternalConsistency);
  if (!program.ok()) {
    throw ProgramError(source_ + " is not a usable program", program.error(), log.take());
  }
  program_.emplace(std::move(program.get()));
  for (size_t i = 0; i < program_->num_methods(); ++i) {
    const Result<const char*> name = program_->get_method_name(i);
    if (!name.ok()) {
      throw ProgramError(source_ + " has a method without a name", name.error(), log.take());
    }
    method_names_.emplace_back(name.get());
  }
  state_.emplace(*program_, method_names_);
  loader_.guard(&*state_);
  std::optional<int> count;
  if (threads_.is_explicit()) {
    count = threads_.count();
  }
  if (const auto problem = delegate_options_.set(*program_, options.delegate_options, count)) {
    throw InputValueError(source_ + ": " + *problem);
  }
  if (options.values) {
    auto recorder = std::make_unique<ValueRecorder>();
    recorder_ = recorder.get();
    tracer_ = std::move(recorder);
  } else if (options.etdump) {
    tracer_ = std::make_unique<executorch::etdump::ETDumpGen>();
  }
}

void Program::check_name(const std::string& name) const {
  if (std::find(method_names_.begin(), method_names_.end(), name) == method_names_.end()) {
    throw InputValueError(source_ + " has no method '" + name +
                          "'; it has: " + join(method_names_, ", "));
  }
}

MethodInfo Program::peek(const std::string& name) const {
  check_name(name);
  LogCapture log;
  const auto meta = program_->method_meta(name.c_str());
  if (!meta.ok()) {
    throw ProgramError(source_ + ": method '" + name + "' cannot be read", meta.error(),
                       log.take());
  }
  return read_method_info(meta.get(), source_);
}

std::string Program::in_place_of(const std::string& name) const {
  const std::string fallback = name + kFallback;
  if (std::find(method_names_.begin(), method_names_.end(), fallback) == method_names_.end()) {
    return name;
  }
  const std::vector<std::string> backends = peek(name).backends;
  LogCapture log;
  const bool is_needed = !std::all_of(backends.begin(), backends.end(), is_usable);
  log.take();  // what delegates say of themselves is no error of this program
  return is_needed ? fallback : name;
}

std::map<std::string, std::string> Program::fallbacks() const {
  std::map<std::string, std::string> found;
  for (const std::string& name : method_names_) {
    const std::string other = in_place_of(name);
    if (other != name) {
      found.emplace(name, other);
    }
  }
  return found;
}

std::vector<std::string> Program::methods_in_use() const {
  std::set<std::string> left_out;
  for (const std::string& name : method_names_) {
    const std::string other = in_place_of(name);
    left_out.insert(other == name ? name + kFallback : name);
  }
  std::vector<std::string> names;
  std::copy_if(method_names_.begin(), method_names_.end(), std::back_inserter(names),
               [&](const std::string& name) { return left_out.count(name) == 0; });
  return names;
}

LoadedMethod& Program::loaded(const std::string& name) {
  auto found = methods_.find(name);
  if (found == methods_.end()) {
    const std::string used = in_place_of(name);
    if (used != name) {
      return loaded(used);
    }
    const ThreadLimit::Scope scope(threads_);
    auto method = std::make_unique<LoadedMethod>(*program_, source_, name, *state_,
                                                 delegate_options_.map(), tracer_.get());
    found = methods_.emplace(name, std::move(method)).first;
  }
  return *found->second;
}

MethodInfo Program::method(const std::string& name) {
  check_name(name);
  std::lock_guard<std::mutex> lock(mutex_);
  return loaded(name).info();
}

std::vector<Output> Program::run(const std::string& name, const std::vector<Input>& inputs,
                                 RunTimes* times, Memory memory) {
  check_name(name);
  std::lock_guard<std::mutex> lock(mutex_);
  LoadedMethod& method = loaded(name);
  const ThreadLimit::Scope scope(threads_);
  const int64_t start = now_ns();
  method.set_inputs(inputs);
  if (memory == Memory::kInCache) {
    method.read_memory();
  }
  const int64_t ready = now_ns();
  method.execute();
  const int64_t done = now_ns();
  std::vector<Output> outputs = method.take_outputs();
  if (times != nullptr) {
    *times = RunTimes{done - ready, now_ns() - start};
  }
  return outputs;
}

void Program::unload(const std::string& name) {
  check_name(name);
  std::lock_guard<std::mutex> lock(mutex_);
  methods_.erase(name);
  methods_.erase(in_place_of(name));
}

State Program::state() {
  std::lock_guard<std::mutex> lock(mutex_);
  State state;
  for (const std::string& name : methods_in_use()) {
    state.methods[name] = joined(loaded(name).memory());
  }
  if (const std::optional<AlignedBuffer>& shared = state_->allocated()) {
    state.shared.emplace(shared->data(), shared->data() + shared->size());
  }
  return state;
}

void Program::restore(const State& state) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<std::string> names = methods_in_use();
  for (const auto& [name, bytes] : state.methods) {
    check_name(name);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw InputValueError(source_ + ": the state of method '" + name +
                            "' is of no use here, where another method runs in its place");
    }
  }
  for (const std::string& name : names) {
    const auto found = state.methods.find(name);
    check_state("method '" + name + "'", found == state.methods.end() ? 0 : found->second.size(),
                total_size(loaded(name).memory()));
  }
  const std::optional<AlignedBuffer>& shared = state_->allocated();
  check_state("what methods share", state.shared.has_value() ? state.shared->size() : 0,
              shared.has_value() ? shared->size() : 0);
  for (const auto& [name, bytes] : state.methods) {
    const std::byte* from = bytes.data();
    for (const AlignedBuffer& block : loaded(name).memory()) {
      std::copy_n(from, block.size(), block.data());
      from += block.size();
    }
  }
  if (shared.has_value()) {
    std::copy(state.shared->begin(), state.shared->end(), shared->data());
  }
}

void Program::check_state(const std::string& what, size_t found, size_t expected) const {
  if (found != expected) {
    throw InputValueError(source_ + ": the state of " + what + " has " + std::to_string(found) +
                          " bytes, expected " + std::to_string(expected) +
                          ": it is of another program");
  }
}

void Program::reset() {
  std::lock_guard<std::mutex> lock(mutex_);
  SharedState first(*program_, method_names_);  // what may fail comes before anything changes
  methods_.clear();
  *state_ = std::move(first);
}

std::vector<uint8_t> Program::take_etdump() {
  if (tracer_ == nullptr) {
    throw InputValueError(source_ + " was not loaded to record a profile: load it with etdump");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  const executorch::etdump::ETDumpResult dump = tracer_->get_etdump_data();
  const std::unique_ptr<void, decltype(&std::free)> owner(dump.buf, &std::free);
  const auto* bytes = static_cast<const uint8_t*>(dump.buf);
  std::vector<uint8_t> copy(bytes, bytes + dump.size);
  tracer_->reset();
  return copy;
}

std::vector<RecordedValue> Program::take_values() {
  if (recorder_ == nullptr) {
    throw InputValueError(source_ + " was not loaded to record values: load it with values");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  return recorder_->take();
}

}  // namespace orchestrator
