// How the runner ends. The codes are part of its interface: scripts rely on them.
#pragma once

#include <stdexcept>
#include <string>

namespace orchestrator {

enum class ExitCode : int {
  kOk = 0,
  kRunFailed = 1,     // the method failed while running
  kBadUsage = 2,      // wrong command line
  kBadModel = 3,      // the program or a method cannot be loaded
  kBadInput = 4,      // an input is missing, malformed or does not fit the method
  kOutputFailed = 5,  // a result cannot be written
};

// Ends the runner with a message and a code.
class ExitError : public std::runtime_error {
 public:
  ExitError(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace orchestrator
