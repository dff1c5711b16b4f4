// Keeps ExecuTorch's error lines, so that an exception can carry them.
#pragma once

#include <executorch/runtime/platform/platform.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace orchestrator {

// While alive, holds back the error lines that ExecuTorch logs on this thread; those that nobody
// took go to the log when it ends. Lower levels are dropped, unless the environment variable
// ORCHESTRATOR_LOG is set. Fatal lines, which precede an abort, and lines of other threads go to
// the log at once. Captures nest; the innermost one gets the lines.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  // The held lines, oldest first, without repeats. When there were more than kMaxLines, the first
  // and the last ones are kept: causes come first in ExecuTorch's log, contexts last.
  std::vector<std::string> lines() const;
  // Takes them, so that they do not go to the log.
  std::vector<std::string> take();

  static constexpr size_t kMaxLines = 16;
  static constexpr size_t kMaxLength = 256;  // ExecuTorch's own limit

 private:
  struct Line {
    et_timestamp_t timestamp;
    const char* file;  // a literal in the code that logs
    const char* function;
    size_t line;
    size_t length;
    std::array<char, kMaxLength> message;
  };

  static void emit(et_timestamp_t timestamp, et_pal_log_level_t level, const char* file,
                   const char* function, size_t line, const char* message, size_t length);
  static void install();
  void hold(et_timestamp_t timestamp, const char* file, const char* function, size_t line,
            const char* message, size_t length);

  LogCapture* outer_;
  size_t count_ = 0;
  // No allocation here: ExecuTorch's frames, which log, are compiled without exceptions.
  std::array<Line, kMaxLines> lines_;
};

}  // namespace orchestrator
