#include "runtime/runner/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <system_error>
#include <utility>

#include "runtime/runner/exit_codes.h"

namespace orchestrator {
namespace {

constexpr char kAbout[] =
    "Runs a method of an ExecuTorch program natively, writes its outputs, prints latencies.";

constexpr char kNotes[] =
    R"(bfloat16, which numpy lacks, is read and written as two opaque bytes ('|V2').
Set ORCHESTRATOR_LOG=1 to see ExecuTorch's informational log.

Exit status: 0 success, 1 the method failed, 2 wrong usage, 3 the program or method cannot be
loaded, 4 an input is missing, malformed or does not fit, 5 a result cannot be written.
)";

void take_shape(const std::string& text, Options& options) {
  const size_t colon = text.find(':');
  size_t index = 0;
  std::vector<int64_t> sizes;
  bool right =
      colon != std::string::npos && CLI::detail::lexical_cast(text.substr(0, colon), index);
  if (right && colon + 1 < text.size()) {
    for (const std::string& part : CLI::detail::split(text.substr(colon + 1), 'x')) {
      right = right && CLI::detail::lexical_cast(part, sizes.emplace_back()) && sizes.back() >= 0;
    }
  }
  if (!right) {
    throw CLI::ValidationError("--shape", "expected I:AxBxC, found '" + text + "'");
  }
  options.shapes[index] = std::move(sizes);
}

void add_input_options(CLI::App& app, Options& options) {
  const auto input = [&](const char* name, bool is_raw, const char* what) {
    // At once, since the order of all inputs counts.
    app.add_option_function<std::string>(
           name,
           [&options, is_raw](const std::string& path) {
             options.inputs.push_back({path, is_raw});
           },
           what)
        ->type_name("FILE")
        ->trigger_on_parse();
  };
  input("--input", false, "numpy file, C order, little-endian; repeat for each tensor");
  input("--input-raw", true, "elements in C order without a header, of the method's dtype");
  app.add_option_function<std::string>(
         "--shape", [&options](const std::string& text) { take_shape(text, options); },
         "sizes of input I, for raw and made-up tensors of dynamic shape (default: the upper "
         "bounds)")
      ->type_name("I:AxBxC")
      ->trigger_on_parse();
  // CLI11 takes -1 for an unsigned number.
  app.add_option_function<int64_t>(
         "--seed", [&options](int64_t seed) { options.seed = static_cast<uint64_t>(seed); },
         "makes up the tensors that have no file: floats in [-1, 1), integers and bools 0 or 1 "
         "(default: 0, when there are no files at all)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()));
}

void add_output_options(CLI::App& app, Options& options) {
  CLI::Option* folder = app.add_option("--output-dir", options.output_dir,
                                       "writes all of them, as DIR/output_0.npy and so on")
                            ->type_name("DIR");
  app.add_option("--output", options.outputs, "numpy file; repeat for each output")
      ->type_name("FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->excludes(folder);
  app.add_option("--json", options.json,
                 "writes what was run and its latencies as JSON; - is standard output")
      ->type_name("FILE");
  app.add_option("--etdump", options.etdump,
                 "writes a profile for ExecuTorch's Inspector; makes the runs slower")
      ->type_name("FILE");
}

void add_run_options(CLI::App& app, Options& options) {
  const auto number = [&](const char* name, int& value, int least, const char* what) {
    app.add_option(name, value, what)
        ->type_name("N")
        ->check(CLI::Range(least, std::numeric_limits<int>::max()));
  };
  number("--threads", options.threads, 0,
         "threads to compute with (default: 0, one for each processor)");
  number("--warmup", options.warmup, 0, "runs before the timed ones (default: 0)");
  number("--runs", options.runs, 1, "timed runs (default: 1)");
}

void take_tokens(const std::string& text, Options& options) {
  options.generate.clear();
  const char* next = text.data();
  const char* const end = next + text.size();
  bool right = true;
  do {
    int64_t token = -1;
    const std::from_chars_result found = std::from_chars(next, end, token);
    right = found.ec == std::errc() && token >= 0 && (found.ptr == end || *found.ptr == ',');
    options.generate.push_back(token);
    next = found.ptr + 1;
  } while (right && next <= end);
  if (!right) {
    throw CLI::ValidationError("--generate",
                               "expected ids of tokens with commas between, found '" + text + "'");
  }
}

void add_generation(CLI::App& app, Options& options) {
  CLI::Option* prompt =
      app.add_option_function<std::string>(
             "--generate", [&options](const std::string& text) { take_tokens(text, options); },
             "continues these tokens with the most likely ones, and prints the ids of these")
          ->type_name("ID,ID,...");
  app.add_option("--max-new-tokens", options.max_new_tokens, "the most to generate (default: 64)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max()))
      ->needs(prompt);
}

void add_calibration(CLI::App& app, Options& options, CLI::Option* model) {
  CLI::Option* folder =
      app.add_option(
             "--calibrate", options.calibrate,
             "times every method of every program in DIR, as `orchestrator calibrate export` "
             "wrote them")
          ->type_name("DIR")
          ->excludes(model);
  app.add_option("--results", options.results,
                 "where to write these times, for `orchestrator calibrate import` (default: "
                 "standard output)")
      ->type_name("FILE")
      ->needs(folder);
}

}  // namespace

Options parse_options(std::vector<std::string> arguments) {
  Options options;
  CLI::App app(kAbout, "orchestrator-run");
  app.footer(kNotes);
  app.get_formatter()->column_width(24);
  CLI::Option* model =
      app.add_option("model", options.model, "the program")->type_name("MODEL.pte");
  app.add_option("--load", options.libraries,
                 "a shared library that brings a delegate; repeat for each")
      ->type_name("LIB")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--list", options.list, "describe the program's methods instead of running one");
  app.add_option("--method", options.method, "the method to run (default: forward)")
      ->type_name("NAME");
  app.option_defaults()->group("Inputs, for the method's tensors in order; scalars need none");
  add_input_options(app, options);
  app.option_defaults()->group("Outputs, of the last run");
  add_output_options(app, options);
  app.option_defaults()->group("Runs");
  add_run_options(app, options);
  app.option_defaults()->group("Language models, as lower_llm makes them, in place of --method");
  add_generation(app, options);
  app.option_defaults()->group("Calibration, instead of running one program");
  add_calibration(app, options, model);
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    app.parse(std::move(arguments));
    if (options.model.empty() && options.calibrate.empty()) {
      throw CLI::RequiredError("a program file (.pte)");
    }
  } catch (const CLI::CallForHelp&) {
    options.help = app.help();
  } catch (const CLI::ParseError& error) {
    throw ExitError(ExitCode::kBadUsage, std::string(error.what()) + " (see --help)");
  }
  return options;
}

}  // namespace orchestrator
