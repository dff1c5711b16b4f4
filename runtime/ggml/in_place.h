// State that a program changes where it lies, as its file declares it: see InPlace in the schema.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ir_generated.h"
#include "log.h"

namespace ggml_delegate {

// What the declarations of a program come to.
struct InPlaceUpdates {
  static constexpr int32_t kNone = -1;

  std::vector<bool> nodes;      // by node, whether it writes into its input 0
  std::vector<int32_t> inputs;  // by output, the input whose memory it may have, or kNone
  std::vector<bool> updated;    // by input, whether an output may have its memory
};

// Follows the declarations through a program whose dataflow is verified. Errors: InvalidProgram for
// one that does not lead from its input to its output, or that some node reads beside.
Result<InPlaceUpdates> in_place_updates(const ir::Program& program);

}  // namespace ggml_delegate
