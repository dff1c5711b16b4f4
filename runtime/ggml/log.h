// Error reporting of the ggml delegate: an ExecuTorch log line, then an ExecuTorch Error.
#pragma once

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/core/result.h>
#include <executorch/runtime/platform/log.h>

namespace ggml_delegate {
using executorch::runtime::Error;
using executorch::runtime::Result;
}  // namespace ggml_delegate

// Returns `error` from the calling function, after a log line, unless `condition` holds.
#define GGD_CHECK_OR(error, condition, format, ...)  \
  do {                                               \
    if (!(condition)) {                              \
      ET_LOG(Error, "ggml: " format, ##__VA_ARGS__); \
      return ::ggml_delegate::Error::error;          \
    }                                                \
  } while (false)

// What a file says is not usable.
#define GGD_CHECK(condition, format, ...) \
  GGD_CHECK_OR(InvalidProgram, condition, format, ##__VA_ARGS__)

// Returns the error of `expression` from the calling function, if it is one.
#define GGD_TRY(expression)                                \
  do {                                                     \
    const ::ggml_delegate::Error ggd_error = (expression); \
    if (ggd_error != ::ggml_delegate::Error::Ok) {         \
      return ggd_error;                                    \
    }                                                      \
  } while (false)

#define GGD_CONCAT_(a, b) a##b
#define GGD_CONCAT(a, b) GGD_CONCAT_(a, b)

// Declares or assigns `target` from the Result `expression`, or returns its error.
#define GGD_ASSIGN_(result, target, expression) \
  auto result = (expression);                   \
  if (!result.ok()) {                           \
    return result.error();                      \
  }                                             \
  target = std::move(result.get())
#define GGD_ASSIGN(target, expression) \
  GGD_ASSIGN_(GGD_CONCAT(ggd_result_, __LINE__), target, expression)
