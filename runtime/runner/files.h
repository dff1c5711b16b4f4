// Whole files, read and written.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/program/aligned_buffer.h"

namespace orchestrator {

// The bytes of a regular file. Throws std::runtime_error, naming the file.
AlignedBuffer read_file(const std::string& path);

// Writes the parts one after another. A regular file is replaced only once the new one is
// complete, so a full disk leaves the old one whole. Throws std::runtime_error, naming the file.
void write_file(const std::string& path, const std::vector<std::string_view>& parts);

}  // namespace orchestrator
