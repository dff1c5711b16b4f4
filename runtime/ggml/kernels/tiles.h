// The tile instructions of x86 (AMX), for products that are summed up: of bfloat16 in float32, of
// bytes in int32.
#pragma once

#include <array>
#include <cstdint>

#include "../processor.h"
#include "gemm.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && \
    defined(__AVX512VBMI__) && defined(__AVX512VNNI__) && defined(__linux__)
#define GGD_TILES
#endif

namespace ggml_delegate {

// Rows of a tile at most, and panels that are multiplied at a time.
inline constexpr int64_t kTileHeight = 16;
inline constexpr int64_t kTilePanels = 2;
inline constexpr int64_t kSumsStride = kTilePanels * kPanelWidth;  // between rows of sums

// So many rows as tiles of the same height; the last one may have fewer.
struct RowTiles {
  explicit RowTiles(int64_t rows) {
    const int64_t least = (rows + kTileHeight - 1) / kTileHeight;
    height = (rows + least - 1) / least;
    count = (rows + height - 1) / height;
  }
  int64_t height;
  int64_t count;
  // Of the tiles from number `first` on, so many are multiplied at a time.
  int64_t at_a_time(int64_t first) const { return first + 1 < count ? 2 : 1; }
};

// Rows of left tiles with panels of right tiles, over `steps` steps along k; see parts.h.
struct TileRun {
  const uint16_t* left;
  int64_t left_stride;  // in elements, between tiles that lie below each other
  const uint16_t* right;
  int64_t right_stride;  // between panels
  int64_t height;        // rows of a tile of the left factor
  int64_t steps;
  float* sums;  // rows kSumsStride apart
};

// The same for bytes, of which four are added up at a time: those on the left have no sign.
struct ByteTileRun {
  const uint8_t* left;
  int64_t left_stride;
  const int8_t* right;
  int64_t right_stride;
  int64_t height;
  int64_t depth;  // bytes in a row of a left tile
  int64_t steps;
  int32_t* sums;
  bool accumulate;  // onto what is in them
};

// For tiles of so many rows of the left factor, each of so many bytes. At its end, the thread's
// tiles have the shapes that they had before: of other users of tiles in this process, llama.cpp
// sets them once per thread and counts on them.
class TileShape {
 public:
  TileShape(int64_t rows, int64_t row_bytes);
  ~TileShape();
  TileShape(const TileShape&) = delete;
  TileShape& operator=(const TileShape&) = delete;

 private:
  alignas(64) std::array<uint8_t, 64> before_;
};

// For one or two tiles below each other, and one or two panels.
using TileKernel = void (*)(const TileRun& run);
TileKernel tile_kernel(int parts, int64_t tiles, int64_t panels);
using ByteTileKernel = void (*)(const ByteTileRun& run);
ByteTileKernel byte_tile_kernel(int64_t tiles, int64_t panels);

}  // namespace ggml_delegate
