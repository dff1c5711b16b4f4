// What loading and running a program can throw.
#pragma once

#include <executorch/runtime/core/error.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace orchestrator {

// ExecuTorch's name of an error code, without its enum: "InvalidProgram".
std::string error_name(executorch::runtime::Error error);

// ExecuTorch refused a program, or failed while running it.
class ProgramError : public std::runtime_error {
 public:
  // what(): "`what` (InvalidProgram): line; line".
  ProgramError(const std::string& what, executorch::runtime::Error error,
               std::vector<std::string> log = {});

  const std::string& code() const { return code_; }
  // ExecuTorch's error lines of the failed call, oldest first.
  const std::vector<std::string>& log() const { return log_; }

 private:
  std::string code_;
  std::vector<std::string> log_;
};

// A caller's input of the wrong kind or dtype.
class InputTypeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A caller's input of the right kind with a wrong count, shape, layout or value.
class InputValueError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Joins items with a separator.
std::string join(const std::vector<std::string>& items, const std::string& separator);

}  // namespace orchestrator
