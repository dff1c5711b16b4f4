// What a kernel may do to its results before it stores them.
#pragma once

#include <limits>

namespace ggml_delegate {

struct ClampParams {
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
};

}  // namespace ggml_delegate
