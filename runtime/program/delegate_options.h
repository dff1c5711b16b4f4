// The options that a program's delegates are loaded with.
#pragma once

#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/executor/program.h>

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace orchestrator {

struct DelegateOption {
  std::string backend;  // the id of a delegate
  std::string key;
  std::variant<bool, int, std::string> value;
};

// Not thread-safe. Neither copied nor moved: the map points into it.
class DelegateOptions {
 public:
  DelegateOptions() = default;
  DelegateOptions(const DelegateOptions&) = delete;
  DelegateOptions& operator=(const DelegateOptions&) = delete;

  // Options for the delegates of a program; those for others are left out. A number of threads is
  // the option "num_threads" of every delegate that is not given one.
  // Returns what is wrong with an option, or nothing.
  std::optional<std::string> set(const executorch::runtime::Program& program,
                                 const std::vector<DelegateOption>& options,
                                 std::optional<int> num_threads);

  const executorch::runtime::LoadBackendOptionsMap& map() const { return map_; }

 private:
  std::map<std::string, std::vector<executorch::runtime::BackendOption>> options_;
  executorch::runtime::LoadBackendOptionsMap map_;
};

}  // namespace orchestrator
