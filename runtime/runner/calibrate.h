// Timing every method of many programs: what `orchestrator calibrate export` wrote, on a device.
#pragma once

#include "runtime/runner/options.h"

namespace orchestrator {

// Times the methods of every .pte in the folder `options.calibrate`, those of one file in turn,
// one run each per round, and writes one line per method to `options.results`, or to standard
// output: file, method, median and half the interquartile range in ns, and the number of runs, with
// tabs between. A method that cannot run has 0 runs and the reason in a sixth field. Lines that
// start with # say what was measured on. Progress goes to standard error.
//
// Throws ExitError: the folder cannot be read or holds no program, or the results cannot be
// written.
void calibrate(const Options& options);

}  // namespace orchestrator
