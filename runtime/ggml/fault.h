#pragma once

namespace ggml_delegate {

// What goes wrong inside a kernel, where no Error can be returned.
enum class Fault : int { None = 0, IndexOutOfRange = 1, IntegerOverflow = 2, OutOfMemory = 3 };

}  // namespace ggml_delegate
