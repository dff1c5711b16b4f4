#include "runtime/runner/generate.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/program/errors.h"
#include "runtime/program/program.h"
#include "runtime/runner/exit_codes.h"
#include "runtime/runner/files.h"

namespace orchestrator {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Calls `function`, whose errors become the runner's.
template <typename Function>
auto ending_with(ExitCode code, Function function) {
  try {
    return function();
  } catch (const ExitError&) {
    throw;
  } catch (const std::runtime_error& error) {
    throw ExitError(code, error.what());
  }
}

class LanguageModel {
 public:
  explicit LanguageModel(const Options& options) {
    ending_with(ExitCode::kBadModel, [&] {
      program_ = Program::from_file(options.model, {options.threads, false});
      const std::vector<std::string>& names = program_->method_names();
      const auto has = [&](const char* name) {
        return std::find(names.begin(), names.end(), name) != names.end();
      };
      if (has("prefill") && has("decode")) {
        several_ = "prefill";
        one_ = "decode";
      } else if (has("forward")) {
        several_ = one_ = "forward";
      } else {
        refuse("it has no methods 'prefill' and 'decode', and none named 'forward'");
      }
      for (const char* name : {"get_max_context_len", "get_eos_ids"}) {
        if (!has(name)) refuse(std::string("it has no method '") + name + "'");
      }
      const std::vector<int64_t> context = numbers("get_max_context_len");
      if (context.size() != 1 || context[0] < 1) refuse("'get_max_context_len' gives no number");
      context_ = context[0];
      ends_ = numbers("get_eos_ids");
      chunk_ = std::max(read_sizes(several_), read_sizes(one_));
    });
  }

  int64_t context() const { return context_; }
  int64_t vocabulary() const { return vocabulary_; }
  bool ends(int64_t token) const {
    return std::find(ends_.begin(), ends_.end(), token) != ends_.end();
  }

  // Runs tokens from a position on; returns the most likely next one.
  int64_t next(const std::vector<int64_t>& tokens, int64_t first) {
    int64_t found = 0;
    const auto count = static_cast<int64_t>(tokens.size());
    for (int64_t start = 0; start < count; start += chunk_) {
      const int64_t length = std::min(chunk_, count - start);
      const bool last = start + length == count;
      const std::vector<Output> outputs = run(tokens.data() + start, length, first + start);
      if (last) found = best(outputs);
    }
    return found;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw ExitError(ExitCode::kBadModel,
                    program_->source() + " is no language model as `lower_llm` makes one: " + what);
  }

  // What a method without inputs gives.
  std::vector<int64_t> numbers(const char* method) {
    std::vector<int64_t> found;
    for (const Output& output : program_->run(method, {})) {
      const auto* scalar = std::get_if<Scalar>(&output);
      const auto* number = scalar == nullptr ? nullptr : std::get_if<int64_t>(scalar);
      if (number == nullptr) refuse(std::string("'") + method + "' gives what is no integer");
      found.push_back(*number);
    }
    return found;
  }

  // Checks a method's inputs and results; returns how many tokens it takes at most.
  int64_t read_sizes(const std::string& name) {
    const MethodInfo method = program_->method(name);
    const auto is = [](const ValueInfo& value, const char* dtype, size_t rank) {
      return value.tag == Tag::Tensor && value.tensor.dtype == find_dtype(dtype) &&
             value.tensor.sizes.size() == rank;
    };
    const bool fits =
        method.inputs.size() == 2 && is(method.inputs[0], "int64", 2) &&
        is(method.inputs[1], "int64", 1) && method.outputs.size() == 1 &&
        is(method.outputs[0], "float32", 2) && method.inputs[0].tensor.sizes[0] == 1 &&
        method.inputs[0].tensor.sizes[1] == method.inputs[1].tensor.sizes[0] &&
        method.outputs[0].tensor.sizes[0] == 1 && method.outputs[0].tensor.sizes[1] >= 1 &&
        method.inputs[1].tensor.sizes[0] >= 1;
    if (!fits) {
      refuse("'" + name +
             "' does not take tokens, int64 [1, n], and positions, int64 [n], to scores, float32 "
             "[1, vocabulary]");
    }
    vocabulary_ = method.outputs[0].tensor.sizes[1];
    return method.inputs[1].tensor.sizes[0];
  }

  std::vector<Output> run(const int64_t* tokens, int64_t count, int64_t first) {
    std::vector<int64_t> positions(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) positions[static_cast<size_t>(i)] = first + i;
    const DType* dtype = find_dtype("int64");
    const std::vector<Input> inputs{TensorView{dtype, tokens, {1, count}, {count, 1}},
                                    TensorView{dtype, positions.data(), {count}, {1}}};
    return ending_with(ExitCode::kRunFailed,
                       [&] { return program_->run(count == 1 ? one_ : several_, inputs); });
  }

  int64_t best(const std::vector<Output>& outputs) const {
    const auto& scores = std::get<OutputTensor>(outputs.at(0));
    const auto* values = reinterpret_cast<const float*>(scores.data.data());
    return std::max_element(values, values + vocabulary_) - values;
  }

  std::unique_ptr<Program> program_;
  std::string several_;
  std::string one_;
  std::vector<int64_t> ends_;
  int64_t context_ = 0;
  int64_t vocabulary_ = 0;
  int64_t chunk_ = 1;
};

void check_prompt(const std::vector<int64_t>& prompt, const LanguageModel& model) {
  const auto count = static_cast<int64_t>(prompt.size());
  if (count > model.context()) {
    throw ExitError(ExitCode::kBadInput, "the prompt has " + std::to_string(count) +
                                             " tokens, and the context holds " +
                                             std::to_string(model.context()));
  }
  for (const int64_t token : prompt) {
    if (token < 0 || token >= model.vocabulary()) {
      throw ExitError(ExitCode::kBadInput,
                      "token " + std::to_string(token) +
                          " of the prompt is not in the vocabulary: expected 0 "
                          "to " +
                          std::to_string(model.vocabulary() - 1));
    }
  }
}

struct Generated {
  std::vector<int64_t> tokens;
  std::string ending;
  double prompt_s = 0;
  double decode_s = 0;
  int64_t decoded = 0;  // runs of single tokens
};

Generated continued(LanguageModel& model, const Options& options) {
  Generated found;
  Clock::time_point start = Clock::now();
  int64_t token = model.next(options.generate, 0);
  found.prompt_s = seconds_since(start);
  start = Clock::now();
  auto position = static_cast<int64_t>(options.generate.size());
  while (true) {
    if (model.ends(token)) {
      found.ending = "end";
      break;
    }
    std::printf(found.tokens.empty() ? "%lld" : " %lld", static_cast<long long>(token));
    std::fflush(stdout);
    found.tokens.push_back(token);
    if (static_cast<int64_t>(found.tokens.size()) == options.max_new_tokens) {
      found.ending = "length";
      break;
    }
    if (position == model.context()) {
      found.ending = "context";
      break;
    }
    token = model.next({token}, position++);
    ++found.decoded;
  }
  found.decode_s = seconds_since(start);
  return found;
}

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace

void generate(const Options& options) {
  LanguageModel model(options);
  check_prompt(options.generate, model);
  const Generated found = continued(model, options);
  const auto prompt = static_cast<int64_t>(options.generate.size());
  const double prompt_rate = rate(prompt, found.prompt_s);
  const double decode_rate = rate(found.decoded, found.decode_s);
  std::printf(
      "\n%lld tokens of prompt, %.1f a second; %zu generated, %.1f a second; ended by: %s\n",
      static_cast<long long>(prompt), prompt_rate, found.tokens.size(), decode_rate,
      found.ending.c_str());
  if (options.json.empty()) return;
  const nlohmann::ordered_json json = {
      {"model", options.model},       {"prompt_tokens", prompt},    {"tokens", found.tokens},
      {"ending", found.ending},       {"prompt_s", found.prompt_s}, {"decode_s", found.decode_s},
      {"decode_runs", found.decoded},
  };
  const std::string text =
      json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  ending_with(ExitCode::kOutputFailed, [&] { write_file(options.json, {text}); });
}

}  // namespace orchestrator
