// A run's outputs, as files.
#pragma once

#include <string>
#include <vector>

#include "runtime/program/tensor.h"
#include "runtime/runner/options.h"

namespace orchestrator {

// Where each output goes; empty names for none. Throws ExitError(kBadUsage) if there are more
// --output than outputs, ExitError(kOutputFailed) if the folder cannot be made.
std::vector<std::string> plan_output_files(const MethodInfo& method, const Options& options);

// Writes the outputs that have a file; scalars as arrays without dimensions, None not at all.
// Throws ExitError(kOutputFailed).
void write_outputs(const std::vector<Output>& outputs, const std::vector<std::string>& files);

}  // namespace orchestrator
