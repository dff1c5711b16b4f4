// orchestrator-run: runs ExecuTorch programs natively. Its options are in options.cpp.
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "runtime/program/backends.h"
#include "runtime/program/errors.h"
#include "runtime/program/program.h"
#include "runtime/runner/calibrate.h"
#include "runtime/runner/exit_codes.h"
#include "runtime/runner/files.h"
#include "runtime/runner/generate.h"
#include "runtime/runner/inputs.h"
#include "runtime/runner/latency.h"
#include "runtime/runner/options.h"
#include "runtime/runner/outputs.h"
#include "runtime/runner/report.h"

namespace orchestrator {
namespace {

int64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

struct LoadedModel {
  std::unique_ptr<Program> program;
  MethodInfo method;
  int64_t load_ns = 0;
};

std::unique_ptr<Program> load_program(const Options& options) {
  try {
    return Program::from_file(options.model, {options.threads, !options.etdump.empty()});
  } catch (const ProgramError& error) {
    throw ExitError(ExitCode::kBadModel, error.what());
  }
}

LoadedModel load(const Options& options) {
  LoadedModel model;
  const int64_t start = now_ns();
  model.program = load_program(options);
  try {
    model.method = model.program->method(options.method);
  } catch (const ProgramError& error) {
    throw ExitError(ExitCode::kBadModel, error.what());
  } catch (const InputValueError& error) {
    throw ExitError(ExitCode::kBadUsage, error.what());
  }
  model.load_ns = now_ns() - start;
  if (model.method.name != options.method) {
    std::fprintf(stderr,
                 "orchestrator-run: delegates of method '%s' cannot be used here; '%s' runs in its "
                 "place\n",
                 options.method.c_str(), model.method.name.c_str());
  }
  return model;
}

std::vector<Output> run_once(LoadedModel& model, const RunInputs& inputs, RunTimes* times) {
  try {
    return model.program->run(model.method.name, inputs.values, times);
  } catch (const ProgramError& error) {
    throw ExitError(ExitCode::kRunFailed, error.what());
  } catch (const std::runtime_error& error) {
    throw ExitError(ExitCode::kBadInput, error.what());
  }
}

std::vector<Output> run_all(LoadedModel& model, const RunInputs& inputs, const Options& options,
                            RunReport& report) {
  for (int i = 0; i < options.warmup; ++i) {
    run_once(model, inputs, nullptr);
  }
  std::vector<int64_t> calls;
  std::vector<int64_t> executions;
  std::vector<Output> outputs;
  for (int i = 0; i < options.runs; ++i) {
    RunTimes times;
    outputs = run_once(model, inputs, &times);
    calls.push_back(times.total_ns);
    executions.push_back(times.execute_ns);
  }
  report.call = summarize(std::move(calls));
  report.execute = summarize(std::move(executions));
  return outputs;
}

// Throws ExitError(kOutputFailed).
void write_text(const std::string& path, std::string_view text) {
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return;
  }
  try {
    write_file(path, {text});
  } catch (const std::runtime_error& error) {
    throw ExitError(ExitCode::kOutputFailed, error.what());
  }
}

void write_etdump(Program& program, const std::string& path) {
  const std::vector<uint8_t> dump = program.take_etdump();
  write_text(path, {reinterpret_cast<const char*>(dump.data()), dump.size()});
}

void run(const Options& options) {
  LoadedModel model = load(options);
  const RunInputs inputs = make_inputs(model.method, options);
  RunReport report;
  report.model = options.model;
  report.method = model.method;
  report.threads = model.program->num_threads();
  report.warmup = options.warmup;
  report.runs = options.runs;
  report.load_ns = model.load_ns;
  report.input_sources = inputs.sources;
  report.output_files = plan_output_files(model.method, options);

  const std::vector<Output> outputs = run_all(model, inputs, options, report);
  for (const Output& output : outputs) {
    report.output_values.push_back(output_text(output));
  }
  write_outputs(outputs, report.output_files);
  if (!options.etdump.empty()) {
    write_etdump(*model.program, options.etdump);
  }
  if (options.json != "-") {
    write_text("-", to_text(report));
  }
  if (!options.json.empty()) {
    write_text(options.json, to_json(report));
  }
}

void load_libraries(const Options& options) {
  for (const std::string& path : options.libraries) {
    try {
      load_library(path);
    } catch (const std::runtime_error& error) {
      throw ExitError(ExitCode::kBadModel, std::string("--load: ") + error.what());
    }
  }
}

void execute(std::vector<std::string> arguments) {
  const Options options = parse_options(std::move(arguments));
  load_libraries(options);
  if (!options.help.empty()) {
    write_text("-", options.help);
  } else if (!options.calibrate.empty()) {
    calibrate(options);
  } else if (!options.generate.empty()) {
    generate(options);
  } else if (options.list) {
    write_text("-", list_methods(*load_program(options)));
  } else {
    run(options);
  }
  if (std::fflush(stdout) != 0) {
    throw ExitError(ExitCode::kOutputFailed, "standard output cannot be written");
  }
}

}  // namespace
}  // namespace orchestrator

int main(int count, char** arguments) {
  using orchestrator::ExitCode;
  ExitCode code = ExitCode::kOk;
  std::string message;
  try {
    orchestrator::execute({arguments + (count > 0 ? 1 : 0), arguments + count});
  } catch (const orchestrator::ExitError& error) {
    code = error.code();
    message = error.what();
  } catch (const std::exception& error) {
    code = ExitCode::kRunFailed;
    message = error.what();
  }
  if (code != ExitCode::kOk) {
    std::fprintf(stderr, "orchestrator-run: %s\n", message.c_str());
  }
  return static_cast<int>(code);
}
