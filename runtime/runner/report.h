// What a run was and what it took, as text and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/program/program.h"
#include "runtime/runner/latency.h"
#include "runtime/runner/options.h"

namespace orchestrator {

struct RunReport {
  std::string model;
  MethodInfo method;
  int threads = 0;
  int warmup = 0;
  int runs = 0;
  int64_t load_ns = 0;                     // program and method
  Latency call;                            // a whole call, as a caller sees it
  Latency execute;                         // the method alone
  std::vector<std::string> input_sources;  // per input
  std::vector<std::string> output_values;  // per output: "float32 [1, 10]" or a scalar
  std::vector<std::string> output_files;   // per output, may be empty
};

// "float32 [1, 10]", "int 3"
std::string output_text(const Output& output);

std::string to_text(const RunReport& report);
// Times are in microseconds.
std::string to_json(const RunReport& report);
// The methods of a program. Where a method can be loaded, dynamic shapes are marked.
std::string list_methods(Program& program);

}  // namespace orchestrator
