// What this library uses of the processor that it runs on.
#pragma once

namespace ggml_delegate {

// Whether this process may use the tile instructions of x86 (AMX): the build has them, and so do
// the processor and the system, which is asked once for their registers.
[[gnu::visibility("default")]] bool has_tiles();

// Whether the build has an instruction that multiplies bytes and adds up four products (VNNI).
[[gnu::visibility("default")]] bool has_byte_products();

}  // namespace ggml_delegate
