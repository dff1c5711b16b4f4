// A graph cut into the pieces that a profile tells apart: one per node of the exported graph.
#pragma once

#include <executorch/runtime/core/event_tracer.h>
#include <ggml-cpu.h>

#include <memory>
#include <string>
#include <vector>

#include "graph.h"

namespace ggml_delegate {

// The nodes of a ggml graph, up to `end`, that compute the exported node `name`.
struct GraphPiece {
  std::string name;
  int end;
};

class TracedGraph {
 public:
  // Nodes of `graph` behind the last piece belong to the outputs.
  static Result<std::unique_ptr<TracedGraph>> create(ggml_cgraph* graph,
                                                     const std::vector<GraphPiece>& pieces);

  // Computes piece by piece, logging an event for each; `plan` is one for the whole graph.
  ggml_status compute(ggml_cplan* plan, executorch::runtime::EventTracer& tracer);

 private:
  struct Step {
    std::string name;
    ggml_cgraph* graph;
  };
  ContextPtr context_;  // owns the steps' graphs
  std::vector<Step> steps_;
};

// Logs the time from its construction to its end as an event of the delegate; no-op without a
// tracer.
class TracedScope {
 public:
  TracedScope(executorch::runtime::EventTracer* tracer, const char* name);
  ~TracedScope();
  TracedScope(const TracedScope&) = delete;
  TracedScope& operator=(const TracedScope&) = delete;

 private:
  executorch::runtime::EventTracer* const tracer_;
  executorch::runtime::EventTracerEntry entry_{};
};

// Names of the events that belong to no exported node: converting the dtypes of what crosses the
// boundary, and the dim orders of what goes out.
inline constexpr char kInputsEvent[] = "ggml: convert inputs";
inline constexpr char kOutputsEvent[] = "ggml: convert outputs";
inline constexpr char kDimOrdersEvent[] = "ggml: reorder outputs";

}  // namespace ggml_delegate
