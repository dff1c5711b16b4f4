#include "runtime/program/delegate_options.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <set>

namespace orchestrator {
namespace {

using executorch::runtime::BackendOption;
using executorch::runtime::Error;
using executorch::runtime::kMaxOptionKeyLength;
using executorch::runtime::kMaxOptionValueLength;

constexpr char kNumThreads[] = "num_threads";

// The delegates that the program's methods call. What cannot be read is an error where a method is
// loaded.
std::set<std::string> delegates_of(const executorch::runtime::Program& program) {
  std::set<std::string> found;
  for (size_t method = 0; method < program.num_methods(); ++method) {
    const auto name = program.get_method_name(method);
    if (!name.ok()) {
      continue;
    }
    const auto meta = program.method_meta(name.get());
    for (size_t i = 0; meta.ok() && i < meta->num_backends(); ++i) {
      const auto backend = meta->get_backend_name(i);
      if (backend.ok()) {
        found.emplace(backend.get());
      }
    }
  }
  return found;
}

void copy_text(const std::string& text, char* destination) {
  std::copy(text.begin(), text.end(), destination);  // zeros follow
}

std::optional<std::string> check(const DelegateOption& option) {
  const std::string where = "option '" + option.key + "' of " + option.backend;
  if (option.key.empty() || option.key.size() >= kMaxOptionKeyLength) {
    return where + ": a name has 1 to " + std::to_string(kMaxOptionKeyLength - 1) + " bytes";
  }
  const auto* text = std::get_if<std::string>(&option.value);
  if (text != nullptr && text->size() >= kMaxOptionValueLength) {
    return where + ": a text has at most " + std::to_string(kMaxOptionValueLength - 1) +
           " bytes, found " + std::to_string(text->size());
  }
  return std::nullopt;
}

BackendOption as_option(const DelegateOption& option) {
  BackendOption result;
  copy_text(option.key, result.key);
  if (const auto* text = std::get_if<std::string>(&option.value)) {
    std::array<char, kMaxOptionValueLength> value{};
    copy_text(*text, value.data());
    result.value = value;
  } else if (const auto* flag = std::get_if<bool>(&option.value)) {
    result.value = *flag;
  } else {
    result.value = std::get<int>(option.value);
  }
  return result;
}

}  // namespace

std::optional<std::string> DelegateOptions::set(const executorch::runtime::Program& program,
                                                const std::vector<DelegateOption>& options,
                                                std::optional<int> num_threads) {
  const std::set<std::string> delegates = delegates_of(program);
  for (const DelegateOption& option : options) {
    if (auto problem = check(option)) {
      return problem;
    }
    if (delegates.count(option.backend) != 0) {
      options_[option.backend].push_back(as_option(option));
    }
  }
  for (const std::string& backend : delegates) {
    std::vector<BackendOption>& own = options_[backend];
    const bool is_given = std::any_of(own.begin(), own.end(), [](const BackendOption& option) {
      return std::string(option.key) == kNumThreads;
    });
    if (num_threads && !is_given) {
      own.push_back(as_option({backend, kNumThreads, *num_threads}));
    }
    if (own.empty()) {
      continue;
    }
    if (map_.set_options(backend.c_str(), {own.data(), own.size()}) != Error::Ok) {
      return "options of " + backend + ": ExecuTorch has no room for those of so many delegates";
    }
  }
  return std::nullopt;
}

}  // namespace orchestrator
