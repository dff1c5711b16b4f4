#include "runtime/runner/files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>

namespace orchestrator {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

[[noreturn]] void fail(const std::string& path, const std::string& problem, int number) {
  throw std::runtime_error("'" + path + "' " + problem +
                           (number != 0 ? std::string(": ") + std::strerror(number) : ""));
}

// Returns 0 or an errno.
int write_parts(const std::string& path, const std::vector<std::string_view>& parts) {
  File file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) {
    return errno;
  }
  for (const std::string_view part : parts) {
    if (std::fwrite(part.data(), 1, part.size(), file.get()) != part.size()) {
      return errno;
    }
  }
  return std::fclose(file.release()) == 0 ? 0 : errno;
}

}  // namespace

AlignedBuffer read_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    fail(path, "does not exist", 0);
  }
  if (!std::filesystem::is_regular_file(status)) {
    fail(path, "is not a regular file", 0);
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error) {
    fail(path, "cannot be read: " + error.message(), 0);
  }
  const File file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) {
    fail(path, "cannot be read", errno);
  }
  AlignedBuffer bytes(size);
  if (std::fread(bytes.data(), 1, size, file.get()) != size) {
    fail(path, "cannot be read whole", errno);
  }
  return bytes;
}

void write_file(const std::string& path, const std::vector<std::string_view>& parts) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  // A device or a pipe must not be replaced by a file.
  const bool in_place =
      std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  const std::string written = in_place ? path : target.string() + ".unfinished";
  int failure = write_parts(written, parts);
  if (failure == 0 && !in_place) {
    std::filesystem::rename(written, target, error);
    failure = error.value();
  }
  if (failure != 0) {
    if (!in_place) {
      std::filesystem::remove(written, error);
    }
    fail(path, "cannot be written", failure);
  }
}

}  // namespace orchestrator
