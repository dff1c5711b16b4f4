#include "traced_graph.h"

#include <algorithm>

namespace ggml_delegate {
namespace {

using executorch::runtime::EventTracer;
using executorch::runtime::kUnsetDelegateDebugIntId;

// Views and leaves take no time; a piece of them alone is not worth an event.
bool computes(const ggml_tensor* tensor) {
  switch (tensor->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
      return false;
    default:
      return true;
  }
}

struct Range {
  std::string name;
  int begin;
  int end;
};

// Pieces with neighbours of the same name joined: one exported node can be several of the IR's.
std::vector<Range> ranges(ggml_cgraph* graph, const std::vector<GraphPiece>& pieces) {
  std::vector<Range> found;
  const auto add = [&](const std::string& name, int end) {
    const int begin = found.empty() ? 0 : found.back().end;
    if (!found.empty() && found.back().name == name) {
      found.back().end = end;
    } else {
      found.push_back({name, begin, end});
    }
  };
  for (const GraphPiece& piece : pieces) add(piece.name, piece.end);
  add(kDimOrdersEvent, ggml_graph_n_nodes(graph));
  ggml_tensor** nodes = ggml_graph_nodes(graph);
  const auto is_empty = [nodes](const Range& range) {
    return std::none_of(nodes + range.begin, nodes + range.end, computes);
  };
  found.erase(std::remove_if(found.begin(), found.end(), is_empty), found.end());
  return found;
}

}  // namespace

Result<std::unique_ptr<TracedGraph>> TracedGraph::create(ggml_cgraph* graph,
                                                         const std::vector<GraphPiece>& pieces) {
  auto traced = std::make_unique<TracedGraph>();
  const std::vector<Range> parts = ranges(graph, pieces);
  ggml_init_params params{};
  params.no_alloc = true;
  params.mem_size = 64;
  for (const Range& part : parts) {
    params.mem_size +=
        ggml_graph_overhead_custom(static_cast<size_t>(part.end - part.begin), false);
  }
  traced->context_.reset(ggml_init(params));
  GGD_CHECK_OR(MemoryAllocationFailed, traced->context_ != nullptr,
               "no memory for a profile of %zu nodes", parts.size());
  for (const Range& part : parts) {
    const auto size = static_cast<size_t>(part.end - part.begin);
    ggml_cgraph* step = ggml_new_graph_custom(traced->context_.get(), size, false);
    for (int i = part.begin; i < part.end; ++i)
      ggml_graph_add_node(step, ggml_graph_node(graph, i));
    traced->steps_.push_back({part.name, step});
  }
  return traced;
}

ggml_status TracedGraph::compute(ggml_cplan* plan, EventTracer& tracer) {
  for (const Step& step : steps_) {
    const TracedScope scope(&tracer, step.name.c_str());
    const ggml_status status = ggml_graph_compute(step.graph, plan);
    if (status != GGML_STATUS_SUCCESS) return status;
  }
  return GGML_STATUS_SUCCESS;
}

TracedScope::TracedScope(EventTracer* tracer, const char* name) : tracer_(tracer) {
  if (tracer_ != nullptr) {
    entry_ = tracer_->start_profiling_delegate(name, kUnsetDelegateDebugIntId);
  }
}

TracedScope::~TracedScope() {
  if (tracer_ != nullptr) tracer_->end_profiling_delegate(entry_);
}

}  // namespace ggml_delegate
