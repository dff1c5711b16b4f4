#include "runtime/program/errors.h"

#include <cstring>
#include <utility>

namespace orchestrator {
namespace {

std::string describe(const std::string& what, executorch::runtime::Error error,
                     const std::vector<std::string>& log) {
  std::string text = what + " (" + error_name(error) + ")";
  return log.empty() ? text : text + ": " + join(log, "; ");
}

}  // namespace

std::string error_name(executorch::runtime::Error error) {
  constexpr char kPrefix[] = "Error::";
  const char* name = executorch::runtime::to_string(error);
  const size_t prefix = std::strlen(kPrefix);
  return std::strncmp(name, kPrefix, prefix) == 0 ? name + prefix : name;
}

ProgramError::ProgramError(const std::string& what, executorch::runtime::Error error,
                           std::vector<std::string> log)
    : std::runtime_error(describe(what, error, log)),
      code_(error_name(error)),
      log_(std::move(log)) {}

std::string join(const std::vector<std::string>& items, const std::string& separator) {
  std::string text;
  for (const std::string& item : items) {
    if (&item != &items.front()) {
      text += separator;
    }
    text += item;
  }
  return text;
}

}  // namespace orchestrator
