// A method's inputs, from files or made up.
#pragma once

#include <string>
#include <vector>

#include "runtime/program/aligned_buffer.h"
#include "runtime/program/tensor.h"
#include "runtime/runner/options.h"

namespace orchestrator {

// Inputs and the memory behind them.
struct RunInputs {
  std::vector<AlignedBuffer> buffers;
  std::vector<Input> values;
  std::vector<std::string> sources;  // per input: a file's name, "seed N" or "program"
};

// Tensors come in the method's dim orders. Throws ExitError(kBadInput), before anything runs, for
// files that cannot be read or do not fit the method, and when there are too few or too many.
RunInputs make_inputs(const MethodInfo& method, const Options& options);

}  // namespace orchestrator
