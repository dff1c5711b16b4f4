// Generating tokens with a language model, as `lower_llm` makes one.
#pragma once

#include "runtime/runner/options.h"

namespace orchestrator {

// Continues the tokens `options.generate` with the most likely ones, and writes their ids to
// standard output as they come, with spaces between, then a line that tells tokens per second and
// what ended the text; with `options.json`, all of that to a file.
//
// Throws ExitError: the program cannot be loaded or is none of a language model (kBadModel), tokens
// that are not in its vocabulary or too many for its context (kBadInput), or a failing run.
void generate(const Options& options);

}  // namespace orchestrator
