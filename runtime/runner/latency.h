// Statistics over the durations of runs.
#pragma once

#include <cstdint>
#include <vector>

namespace orchestrator {

// All in nanoseconds. Percentiles are nearest-rank: durations that did occur.
struct Latency {
  int64_t min_ns = 0;
  int64_t p50_ns = 0;
  int64_t p90_ns = 0;
  int64_t p99_ns = 0;
  int64_t max_ns = 0;
  double mean_ns = 0;
};

// `durations_ns` is not empty.
Latency summarize(std::vector<int64_t> durations_ns);

}  // namespace orchestrator
