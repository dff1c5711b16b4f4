#include "tiles.h"

#include "parts.h"

#if defined(GGD_TILES)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#endif

namespace ggml_delegate {

#if defined(GGD_TILES)
namespace {

constexpr int64_t kRowBytes = 64;
constexpr int64_t kSumsBytes = kTilePanels * kRowBytes;  // between rows of sums
// Tiles 0 to 3 are sums, 4 and 5 left factors, 6 and 7 right factors.
constexpr int kTiles = 8;
constexpr int kFirstLeft = 4;
constexpr int kFirstRight = 6;

// How many rows, and bytes to a row, each tile has: what LDTILECFG reads.
struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> row_bytes{};
  std::array<uint8_t, 16> rows{};
};
static_assert(sizeof(Configuration) == 64);

bool ask_for_tiles() {
  constexpr int64_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int64_t kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// GCC's intrinsic claims to read the first 8 bytes alone.
void load_configuration(const void* configuration) {
  asm volatile("" : : "r"(configuration) : "memory");
  _tile_loadconfig(configuration);
}

// GCC's intrinsics take a tile's number as text.
template <int Tiles, typename Element>
inline void load_left(const Element* from, int64_t stride, int64_t row_bytes = kRowBytes) {
  _tile_loadd(4, from, row_bytes);
  if constexpr (Tiles == 2) _tile_loadd(5, from + stride, row_bytes);
}

template <int Panels, typename Element>
inline void load_right(const Element* from, int64_t stride) {
  _tile_loadd(6, from, kRowBytes);
  if constexpr (Panels == 2) _tile_loadd(7, from + stride, kRowBytes);
}

template <int Tiles, int Panels>
inline void multiply() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (Panels == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (Tiles == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (Tiles == 2 && Panels == 2) _tile_dpbf16ps(3, 5, 7);
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// The tiles of sums, of `height` rows each, as they lie in memory.
template <int Tiles, int Panels>
inline void load_sums(const int32_t* sums, int64_t height) {
  const int32_t* below = sums + height * kSumsStride;
  _tile_loadd(0, sums, kSumsBytes);
  if constexpr (Panels == 2) _tile_loadd(1, sums + kPanelWidth, kSumsBytes);
  if constexpr (Tiles == 2) _tile_loadd(2, below, kSumsBytes);
  if constexpr (Tiles == 2 && Panels == 2) _tile_loadd(3, below + kPanelWidth, kSumsBytes);
}

template <int Tiles, int Panels, typename Sum>
inline void store_sums(Sum* sums, int64_t height) {
  Sum* below = sums + height * kSumsStride;
  _tile_stored(0, sums, kSumsBytes);
  if constexpr (Panels == 2) _tile_stored(1, sums + kPanelWidth, kSumsBytes);
  if constexpr (Tiles == 2) _tile_stored(2, below, kSumsBytes);
  if constexpr (Tiles == 2 && Panels == 2) _tile_stored(3, below + kPanelWidth, kSumsBytes);
}

// The smallest parts come first.
template <int Parts, int Tiles, int Panels>
void run_parts(const TileRun& run) {
  asm volatile("" ::: "memory");  // what the tiles load has been stored by then
  zero_sums();
  const uint16_t* left = run.left;
  const uint16_t* right = run.right;
  for (int64_t step = 0; step < run.steps; ++step) {
    load_right<Panels>(right, run.right_stride);
#pragma GCC unroll 3
    for (int part = Parts - 1; part >= 0; --part) {
      load_left<Tiles>(left + part * kTileElements, run.left_stride);
      multiply<Tiles, Panels>();
    }
    left += kStepElements;
    right += kTileElements;
  }
  store_sums<Tiles, Panels>(run.sums, run.height);
}

template <int Tiles, int Panels>
void run_bytes(const ByteTileRun& run) {
  asm volatile("" ::: "memory");  // what the tiles load has been stored by then
  if (run.accumulate) {
    load_sums<Tiles, Panels>(run.sums, run.height);
  } else {
    zero_sums();
  }
  const uint8_t* left = run.left;
  const int8_t* right = run.right;
  for (int64_t step = 0; step < run.steps; ++step) {
    load_left<Tiles>(left, run.left_stride, run.depth);
    load_right<Panels>(right, run.right_stride);
    _tile_dpbusd(0, 4, 6);
    if constexpr (Panels == 2) _tile_dpbusd(1, 4, 7);
    if constexpr (Tiles == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (Tiles == 2 && Panels == 2) _tile_dpbusd(3, 5, 7);
    left += kTileHeight * run.depth;
    right += kPanelWidth * run.depth;
  }
  store_sums<Tiles, Panels>(run.sums, run.height);
}

template <int Parts>
TileKernel kernel_of(int64_t tiles, int64_t panels) {
  if (tiles == 2) return panels == 2 ? run_parts<Parts, 2, 2> : run_parts<Parts, 2, 1>;
  return panels == 2 ? run_parts<Parts, 1, 2> : run_parts<Parts, 1, 1>;
}

}  // namespace

bool has_tiles() {
  static const bool granted = ask_for_tiles();
  return granted;
}

TileShape::TileShape(int64_t rows, int64_t row_bytes) {
  Configuration configuration;
  for (int i = 0; i < kTiles; ++i) {
    const bool left = i >= kFirstLeft && i < kFirstRight;
    const bool right = i >= kFirstRight;
    configuration.row_bytes[i] = static_cast<uint16_t>(left ? row_bytes : kRowBytes);
    configuration.rows[i] = static_cast<uint8_t>(right ? row_bytes / 4 : rows);
  }
  _tile_storeconfig(before_.data());
  asm volatile("" : : "r"(before_.data()) : "memory");  // this intrinsic claims as little
  load_configuration(&configuration);
}

TileShape::~TileShape() {
  const bool had_shapes = before_[0] != 0;
  if (had_shapes) {
    load_configuration(before_.data());
  } else {
    _tile_release();
  }
}

TileKernel tile_kernel(int parts, int64_t tiles, int64_t panels) {
  switch (parts) {
    case 1:
      return kernel_of<1>(tiles, panels);
    case 2:
      return kernel_of<2>(tiles, panels);
    default:
      return kernel_of<kMostParts>(tiles, panels);
  }
}

ByteTileKernel byte_tile_kernel(int64_t tiles, int64_t panels) {
  if (tiles == 2) return panels == 2 ? run_bytes<2, 2> : run_bytes<2, 1>;
  return panels == 2 ? run_bytes<1, 2> : run_bytes<1, 1>;
}

#else

bool has_tiles() { return false; }

#endif

}  // namespace ggml_delegate
