#include "runtime/runner/calibrate.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "runtime/program/errors.h"
#include "runtime/program/program.h"
#include "runtime/runner/exit_codes.h"
#include "runtime/runner/files.h"
#include "runtime/runner/inputs.h"

namespace orchestrator {
namespace {

// As in orchestrator/cost/measure.py.
constexpr int kMinRuns = 5;
constexpr int kMaxRuns = 40;
constexpr int64_t kTargetNs = 12'000'000;
constexpr int kWarmup = 2;

struct TimedMethod {
  std::string name;
  RunInputs inputs;
  std::vector<int64_t> times_ns;
  int64_t runs = 0;
  std::string failure;
};

std::vector<std::filesystem::path> programs_in(const std::string& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".pte") {
      files.push_back(entry.path());
    }
  }
  if (error) {
    throw ExitError(ExitCode::kBadModel,
                    "cannot read the folder '" + folder + "': " + error.message());
  }
  if (files.empty()) {
    throw ExitError(ExitCode::kBadModel, "the folder '" + folder +
                                             "' holds no program (.pte); make one with "
                                             "`orchestrator calibrate export`");
  }
  std::sort(files.begin(), files.end());
  return files;
}

int64_t run_ns(Program& program, const TimedMethod& method) {
  RunTimes times;
  program.run(method.name, method.inputs.values, &times, Memory::kInCache);
  return times.execute_ns;
}

TimedMethod prepare(Program& program, const std::string& name) {
  TimedMethod method;
  method.name = name;
  try {
    method.inputs = make_inputs(program.method(name), Options());
    for (int i = 0; i < kWarmup; ++i) {
      run_ns(program, method);
    }
    const int64_t first = std::max<int64_t>(run_ns(program, method), 1);
    method.runs = std::clamp<int64_t>(kTargetNs / first, kMinRuns, kMaxRuns);
  } catch (const std::exception& error) {
    method.failure = error.what();
  }
  return method;
}

void time_in_turn(Program& program, std::vector<TimedMethod>& methods) {
  for (int round = 0; round < kMaxRuns; ++round) {
    for (TimedMethod& method : methods) {
      if (method.failure.empty() && round < method.runs) {
        try {
          method.times_ns.push_back(run_ns(program, method));
        } catch (const std::exception& error) {
          method.failure = error.what();
        }
      }
    }
  }
}

// Of a sorted list, between its elements where need be.
double quantile(const std::vector<int64_t>& sorted, double part) {
  const double place = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double rest = place - static_cast<double>(below);
  return static_cast<double>(sorted[below]) * (1 - rest) +
         static_cast<double>(sorted[above]) * rest;
}

std::string result_line(const std::string& file, TimedMethod& method) {
  std::string line = file + "\t" + method.name + "\t";
  if (!method.failure.empty()) {
    std::string reason = method.failure;
    std::replace_if(
        reason.begin(), reason.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
    return line + "0\t0\t0\t" + reason + "\n";
  }
  std::sort(method.times_ns.begin(), method.times_ns.end());
  const double spread = (quantile(method.times_ns, 0.75) - quantile(method.times_ns, 0.25)) / 2;
  char numbers[80];
  std::snprintf(numbers, sizeof(numbers), "%.1f\t%.1f\t%zu\n", quantile(method.times_ns, 0.5),
                spread, method.times_ns.size());
  return line + numbers;
}

// The processor's name, as Linux gives it.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    for (const char* key : {"model name", "Hardware", "uarch"}) {
      if (line.rfind(key, 0) == 0) {
        const size_t colon = line.find(": ");
        return colon == std::string::npos ? line : line.substr(colon + 2);
      }
    }
  }
  return "unknown";
}

std::string measure_file(const std::filesystem::path& path, const Options& options, int* threads) {
  std::unique_ptr<Program> program;
  try {
    program = Program::from_file(path.string(), {options.threads, false});
  } catch (const ProgramError& error) {
    throw ExitError(ExitCode::kBadModel, error.what());
  }
  *threads = program->num_threads();
  std::vector<TimedMethod> methods;
  for (const std::string& name : program->method_names()) {
    methods.push_back(prepare(*program, name));
  }
  time_in_turn(*program, methods);
  std::string lines;
  for (TimedMethod& method : methods) {
    lines += result_line(path.filename().string(), method);
  }
  return lines;
}

}  // namespace

void calibrate(const Options& options) {
  const std::vector<std::filesystem::path> files = programs_in(options.calibrate);
  std::string results;
  int threads = 1;
  for (size_t i = 0; i < files.size(); ++i) {
    std::fprintf(stderr, "%zu of %zu: %s\n", i + 1, files.size(), files[i].filename().c_str());
    results += measure_file(files[i], options, &threads);
  }
  const std::string head = "# orchestrator calibration 1\n# cpu\t" + processor() + "\n# threads\t" +
                           std::to_string(threads) + "\n";
  const std::string text = head + results;
  if (options.results.empty()) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return;
  }
  try {
    write_file(options.results, {text});
  } catch (const std::runtime_error& error) {
    throw ExitError(ExitCode::kOutputFailed, error.what());
  }
}

}  // namespace orchestrator
