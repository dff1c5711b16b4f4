// Delegates: those of this process, and where others come from.
#pragma once

#include <string>
#include <vector>

namespace orchestrator {

// Ids, sorted.
std::vector<std::string> registered_backends();

// Whether a delegate is in this process and says that it can be used.
bool is_usable(const std::string& backend);

// What brings a delegate that ExecuTorch knows, for messages; empty for others.
std::string origin_of(const std::string& backend);

// Loads a shared library, which registers the delegates that it has. Throws std::runtime_error with
// what the dynamic linker says.
void load_library(const std::string& path);

}  // namespace orchestrator
