#include "runtime/program/log_capture.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace orchestrator {
namespace {

thread_local LogCapture* innermost = nullptr;
std::atomic<pal_emit_log_message_method> previous_emit{nullptr};
std::mutex install_mutex;

bool wants_details() {
  static const bool wanted = [] {
    const char* value = std::getenv("ORCHESTRATOR_LOG");
    return value != nullptr && *value != '\0';
  }();
  return wanted;
}

void forward(et_timestamp_t timestamp, et_pal_log_level_t level, const char* file,
             const char* function, size_t line, const char* message, size_t length) {
  const pal_emit_log_message_method emit = previous_emit.load();
  if (emit != nullptr) {
    emit(timestamp, level, file, function, line, message, length);
  }
}

}  // namespace

// ExecuTorch's own register_pal() warns on every second registration and lets the last one win;
// its Python bindings register themselves too, before or after us. So the one entry is replaced
// in place, chained to whatever was there, and put back when somebody replaced it since.
void LogCapture::install() {
  auto* pal = const_cast<executorch::runtime::PalImpl*>(executorch::runtime::get_pal_impl());
  pal_emit_log_message_method* entry = &pal->emit_log_message;
  if (__atomic_load_n(entry, __ATOMIC_ACQUIRE) == &LogCapture::emit) {
    return;
  }
  std::lock_guard<std::mutex> lock(install_mutex);
  const pal_emit_log_message_method previous = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
  if (previous != &LogCapture::emit) {
    previous_emit.store(previous);
    __atomic_store_n(entry, &LogCapture::emit, __ATOMIC_RELEASE);
  }
}

LogCapture::LogCapture() : outer_(innermost) {
  install();
  innermost = this;
}

LogCapture::~LogCapture() {
  innermost = outer_;
  for (size_t i = 0; i < std::min(count_, kMaxLines); ++i) {
    const Line& line = lines_[i];
    forward(line.timestamp, kError, line.file, line.function, line.line, line.message.data(),
            line.length);
  }
}

void LogCapture::emit(et_timestamp_t timestamp, et_pal_log_level_t level, const char* file,
                      const char* function, size_t line, const char* message, size_t length) {
  if (innermost != nullptr && level == kError) {
    innermost->hold(timestamp, file, function, line, message, length);
  } else if (innermost == nullptr || level == kFatal || wants_details()) {
    forward(timestamp, level, file, function, line, message, length);
  }
}

void LogCapture::hold(et_timestamp_t timestamp, const char* file, const char* function, size_t line,
                      const char* message, size_t length) {
  if (count_ >= kMaxLines) {
    // The second half is a window over the newest lines.
    std::copy(lines_.begin() + kMaxLines / 2 + 1, lines_.end(), lines_.begin() + kMaxLines / 2);
  }
  Line& held = lines_[std::min(count_, kMaxLines - 1)];
  ++count_;
  held = Line{timestamp, file, function, line, std::min(length, kMaxLength - 1), {}};
  std::memcpy(held.message.data(), message, held.length);
  held.message[held.length] = '\0';
}

std::vector<std::string> LogCapture::lines() const {
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::min(count_, kMaxLines); ++i) {
    std::string text(lines_[i].message.data(), lines_[i].length);
    if (std::find(lines.begin(), lines.end(), text) == lines.end()) {
      lines.push_back(std::move(text));
    }
  }
  return lines;
}

std::vector<std::string> LogCapture::take() {
  std::vector<std::string> taken = lines();
  count_ = 0;
  return taken;
}

}  // namespace orchestrator
