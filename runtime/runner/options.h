// The runner's command line.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace orchestrator {

struct Options {
  struct InputFile {
    std::string path;
    bool is_raw = false;
  };

  std::string model;
  std::vector<std::string> libraries;  // that bring delegates
  std::string method = "forward";
  std::vector<InputFile> inputs;                  // for the tensor inputs, in order
  std::map<size_t, std::vector<int64_t>> shapes;  // by number of the input
  std::optional<uint64_t> seed;
  std::string output_dir;
  std::vector<std::string> outputs;  // for the outputs, in order
  int threads = 0;
  int warmup = 0;
  int runs = 1;
  std::string json;
  std::string etdump;
  std::vector<int64_t> generate;  // tokens for a language model to continue
  int64_t max_new_tokens = 64;    // of that
  std::string calibrate;          // a folder to time all programs of
  std::string results;            // of that, a file
  bool list = false;
  std::string help;  // what to print instead of running anything
};

// Parses the arguments after the program's name. Throws ExitError(kBadUsage).
Options parse_options(std::vector<std::string> arguments);

}  // namespace orchestrator
