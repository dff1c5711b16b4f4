#include "runtime/runner/options.h"

#include <charconv>
#include <functional>
#include <limits>
#include <string_view>

#include "runtime/runner/exit_codes.h"

namespace orchestrator {

const char kHelp[] =
    R"(Usage: orchestrator-run MODEL.pte [options]
       orchestrator-run --calibrate DIR [--threads N] [--results FILE]

Runs a method of an ExecuTorch program natively, writes its outputs, prints latencies.

  --list               describe the program's methods instead of running one
  --method NAME        the method to run (default: forward)

Inputs, for the method's tensors in order; scalars need none, a program fixes their values:
  --input FILE.npy     numpy file, C order, little-endian; repeat for each tensor
  --input-raw FILE     elements in C order without a header, of the method's dtype
  --shape I:AxBxC      sizes of input I, for raw and made-up tensors of dynamic shape
                       (default: the upper bounds)
  --seed N             makes up the tensors that have no file: floats in [-1, 1), integers and
                       bools 0 or 1 (default: 0, when there are no files at all)

Outputs, of the last run:
  --output FILE.npy    numpy file; repeat for each output
  --output-dir DIR     writes all of them, as DIR/output_0.npy and so on
  --json FILE          writes what was run and its latencies as JSON; - is standard output
  --etdump FILE        writes a profile for ExecuTorch's Inspector; makes the runs slower

Runs:
  --threads N          threads to compute with (default: 0, one for each processor)
  --warmup N           runs before the timed ones (default: 0)
  --runs N             timed runs (default: 1)

Calibration, instead of running one program:
  --calibrate DIR      times every method of every program in DIR, as `orchestrator calibrate
                       export` wrote them
  --results FILE       where to write the times, for `orchestrator calibrate import`
                       (default: standard output)

bfloat16, which numpy lacks, is read and written as two opaque bytes ('|V2').
Set ORCHESTRATOR_LOG=1 to see ExecuTorch's informational log.

Exit status: 0 success, 1 the method failed, 2 wrong usage, 3 the program or method cannot be
loaded, 4 an input is missing, malformed or does not fit, 5 a result cannot be written.
)";

namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw ExitError(ExitCode::kBadUsage, message + " (see --help)");
}

template <typename T>
T parse_number(const std::string& name, std::string_view text, T min) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end || value < min) {
    refuse(name + ": expected an integer of at least " + std::to_string(min) + ", found '" +
           std::string(text) + "'");
  }
  return value;
}

void parse_shape(const std::string& text, Options& options) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    refuse("--shape: expected I:AxBxC, found '" + text + "'");
  }
  const auto index = parse_number<size_t>("--shape", text.substr(0, colon), 0);
  std::vector<int64_t>& sizes = options.shapes[index];
  sizes.clear();
  size_t start = colon + 1;
  while (start < text.size()) {
    const size_t end = std::min(text.find('x', start), text.size());
    sizes.push_back(parse_number<int64_t>("--shape", text.substr(start, end - start), 0));
    start = end + 1;
  }
}

using Handler = std::function<void(Options&, const std::string&)>;

const std::map<std::string, Handler>& valued_options() {
  static const std::map<std::string, Handler> handlers = {
      {"--method", [](Options& o, const std::string& v) { o.method = v; }},
      {"--input", [](Options& o, const std::string& v) { o.inputs.push_back({v, false}); }},
      {"--input-raw", [](Options& o, const std::string& v) { o.inputs.push_back({v, true}); }},
      {"--shape", [](Options& o, const std::string& v) { parse_shape(v, o); }},
      {"--seed",
       [](Options& o, const std::string& v) { o.seed = parse_number<uint64_t>("--seed", v, 0); }},
      {"--output", [](Options& o, const std::string& v) { o.outputs.push_back(v); }},
      {"--output-dir", [](Options& o, const std::string& v) { o.output_dir = v; }},
      {"--json", [](Options& o, const std::string& v) { o.json = v; }},
      {"--calibrate", [](Options& o, const std::string& v) { o.calibrate = v; }},
      {"--results", [](Options& o, const std::string& v) { o.results = v; }},
      {"--etdump", [](Options& o, const std::string& v) { o.etdump = v; }},
      {"--threads",
       [](Options& o, const std::string& v) { o.threads = parse_number("--threads", v, 0); }},
      {"--warmup",
       [](Options& o, const std::string& v) { o.warmup = parse_number("--warmup", v, 0); }},
      {"--runs", [](Options& o, const std::string& v) { o.runs = parse_number("--runs", v, 1); }},
  };
  return handlers;
}

void take_model(Options& options, const std::string& argument) {
  if (!options.model.empty()) {
    refuse("expected one program, found '" + options.model + "' and '" + argument + "'");
  }
  options.model = argument;
}

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      options.help = true;
      return options;
    }
    if (argument == "--list") {
      options.list = true;
    } else if (argument.size() > 1 && argument[0] == '-') {
      const size_t equals = argument.find('=');
      const std::string name = argument.substr(0, equals);
      const auto found = valued_options().find(name);
      if (found == valued_options().end()) {
        refuse("unknown option '" + name + "'");
      }
      if (equals == std::string::npos && i + 1 == arguments.size()) {
        refuse(name + " needs a value");
      }
      found->second(options,
                    equals == std::string::npos ? arguments[++i] : argument.substr(equals + 1));
    } else {
      take_model(options, argument);
    }
  }
  if (!options.calibrate.empty()) {
    if (!options.model.empty()) {
      refuse("--calibrate takes no program, found '" + options.model + "'");
    }
    return options;
  }
  if (!options.results.empty()) {
    refuse("--results goes with --calibrate");
  }
  if (options.model.empty()) {
    refuse("expected a program file (.pte)");
  }
  if (!options.outputs.empty() && !options.output_dir.empty()) {
    refuse("--output and --output-dir exclude each other");
  }
  return options;
}

}  // namespace orchestrator
