#include "runtime/runner/report.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/program/errors.h"

namespace orchestrator {
namespace {

using Json = nlohmann::ordered_json;

template <typename... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  std::array<char, 256> text;
  std::snprintf(text.data(), text.size(), pattern, arguments...);
  return text.data();
}

std::string duration(double ns) {
  return ns < 1e6 ? format("%.1f us", ns / 1e3) : format("%.3f ms", ns / 1e6);
}

std::string latency_text(const Latency& latency) {
  const std::pair<const char*, double> rows[] = {
      {"min", latency.min_ns}, {"p50", latency.p50_ns}, {"p90", latency.p90_ns},
      {"p99", latency.p99_ns}, {"max", latency.max_ns}, {"mean", latency.mean_ns},
  };
  std::string text;
  for (const auto& [name, ns] : rows) {
    text += "  " + std::string(name) + " " + duration(ns);
  }
  return text;
}

Json json_latency(const Latency& latency) {
  return {{"min", latency.min_ns / 1e3}, {"p50", latency.p50_ns / 1e3},
          {"p90", latency.p90_ns / 1e3}, {"p99", latency.p99_ns / 1e3},
          {"max", latency.max_ns / 1e3}, {"mean", latency.mean_ns / 1e3}};
}

std::string values_text(const char* name, const std::vector<ValueInfo>& values) {
  std::string text;
  for (size_t i = 0; i < values.size(); ++i) {
    text += "  " + std::string(name) + " " + std::to_string(i) + ": " + describe(values[i]) + "\n";
  }
  return text;
}

}  // namespace

std::string output_text(const Output& output) {
  if (const auto* tensor = std::get_if<OutputTensor>(&output)) {
    return tensor->dtype->name + (" " + list_text(tensor->sizes));
  }
  const auto& scalar = std::get<Scalar>(output);
  const Tag tag = tag_of(scalar);
  return tag == Tag::None ? "None" : kind_name(tag) + (" " + scalar_text(scalar));
}

std::string to_text(const RunReport& report) {
  const std::vector<std::string>& backends = report.method.backends;
  std::string text = report.model + ": " + report.method.name + ", " +
                     std::to_string(report.threads) +
                     (report.threads == 1 ? " thread, " : " threads, ") +
                     (backends.empty() ? "no delegates" : join(backends, " and ")) + "\n";
  for (size_t i = 0; i < report.input_sources.size(); ++i) {
    text += "input " + std::to_string(i) + ": " + describe(report.method.inputs[i]) + " from " +
            report.input_sources[i] + "\n";
  }
  for (size_t i = 0; i < report.output_values.size(); ++i) {
    const std::string& file = report.output_files[i];
    text += "output " + std::to_string(i) + ": " + report.output_values[i] +
            (file.empty() ? "" : " -> " + file) + "\n";
  }
  text += "load     " + duration(static_cast<double>(report.load_ns)) + "\n";
  text += "latency of " + std::to_string(report.runs) + " runs after " +
          std::to_string(report.warmup) + " for warm-up\n";
  text += "  call   " + latency_text(report.call) + "\n";
  return text + "  execute" + latency_text(report.execute) + "\n";
}

std::string to_json(const RunReport& report) {
  Json inputs = Json::array();
  for (size_t i = 0; i < report.input_sources.size(); ++i) {
    inputs.push_back(
        {{"expected", describe(report.method.inputs[i])}, {"source", report.input_sources[i]}});
  }
  Json outputs = Json::array();
  for (size_t i = 0; i < report.output_values.size(); ++i) {
    outputs.push_back({{"value", report.output_values[i]}, {"file", report.output_files[i]}});
  }
  const Json json = {
      {"model", report.model},
      {"method", report.method.name},
      {"backends", report.method.backends},
      {"threads", report.threads},
      {"warmup", report.warmup},
      {"runs", report.runs},
      {"load_us", static_cast<double>(report.load_ns) / 1e3},
      {"call_us", json_latency(report.call)},
      {"execute_us", json_latency(report.execute)},
      {"inputs", inputs},
      {"outputs", outputs},
  };
  // File names need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string list_methods(Program& program) {
  std::string text;
  for (const std::string& name : program.method_names()) {
    MethodInfo method = program.peek(name);
    std::string note;
    try {
      method = program.method(name);
    } catch (const ProgramError& error) {
      note = "  not loadable here: " + std::string(error.what()) + "\n";
    }
    text += name + ": " +
            (method.backends.empty() ? "no delegates" : join(method.backends, " and ")) + "\n";
    text += values_text("input", method.inputs) + values_text("output", method.outputs) + note;
  }
  return text;
}

}  // namespace orchestrator
