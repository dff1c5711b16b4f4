// What a kernel may do to its results before it stores them.
#pragma once

#include <limits>

#include "precision.h"

namespace ggml_delegate {

struct ClampParams {
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
  Precision precision = Precision::Float32;  // rounded to after that
};

}  // namespace ggml_delegate
