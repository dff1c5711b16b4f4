// The type that results are rounded to before they are stored, as float32.
#pragma once

#include <cstdint>

namespace ggml_delegate {

enum class Precision : uint8_t { Float32, Float16, BFloat16 };

}  // namespace ggml_delegate
