#include "runtime/runner/latency.h"

#include <algorithm>
#include <numeric>

namespace orchestrator {

Latency summarize(std::vector<int64_t> durations_ns) {
  std::sort(durations_ns.begin(), durations_ns.end());
  const size_t count = durations_ns.size();
  const auto percentile = [&](size_t percent) {
    const size_t rank = (count * percent + 99) / 100;  // rounded up, from 1
    return durations_ns[std::max<size_t>(rank, 1) - 1];
  };
  Latency latency;
  latency.min_ns = durations_ns.front();
  latency.p50_ns = percentile(50);
  latency.p90_ns = percentile(90);
  latency.p99_ns = percentile(99);
  latency.max_ns = durations_ns.back();
  latency.mean_ns =
      std::accumulate(durations_ns.begin(), durations_ns.end(), 0.0) / static_cast<double>(count);
  return latency;
}

}  // namespace orchestrator
