#include "gemm.h"

#include <algorithm>
#include <array>
#include <memory>

#include "half.h"
#include "integers.h"
#include "panels.h"
#include "simd.h"
#include "tile_product.h"

// The usual blocking: a block of kBlockRows x kBlockDepth of the left factor stays in the
// second-level cache while one group of panels after another of the right factor, kBlockDepth
// deep, stays in the first; the innermost kernel keeps its tile of the result in registers.
namespace ggml_delegate {
namespace {

using simd::Vec;

constexpr int kVecs = static_cast<int>(kPanelWidth) / simd::kLanes;  // per panel
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int kTileSums = 24;  // vectors; the other registers hold the factors
#elif defined(__AVX__)
constexpr int kTileRows = 6;
constexpr int kTileSums = 12;
#elif defined(__aarch64__)
constexpr int kTileRows = 6;
constexpr int kTileSums = 24;
#else
constexpr int kTileRows = 3;
constexpr int kTileSums = 12;
#endif
constexpr int kMaxPanels = 4;

// Few rows leave registers for more columns, and need them to hide the latency of a sum.
constexpr int panels_for(int rows) {
  const int fit = kTileSums / (rows * kVecs);
  return fit < 1 ? 1 : (fit > kMaxPanels ? kMaxPanels : fit);
}

// Per thread: with fewer, one thread may have a good deal more to do than another.
constexpr int64_t kPanelsToShare = 6;

struct Workspace {
  alignas(64) std::array<float, kBlockRows * kBlockDepth> left;
  alignas(64) std::array<float, kMaxPanels * kBlockDepth * kPanelWidth> right;
};

// One per thread, made at its first product.
Workspace& workspace() {
  thread_local const std::unique_ptr<Workspace> space(new Workspace);
  return *space;
}

struct Tile {
  const float* left;
  int64_t left_stride;
  const void* right;     // of the type that the kernel reads
  int64_t right_step;    // between rows of a panel
  int64_t panel_stride;  // between panels
  int64_t depth;
  float* result;
  int64_t result_stride;
  int64_t columns;    // that the result has from here on
  const float* bias;  // what the sums start from; null: 0
  bool accumulate;    // onto what is in the result
  bool last;          // clamp and round
  float min;
  float max;
  Precision precision;
};

inline Vec load_some(const float* from, bool whole, int64_t count) {
  return whole ? simd::load(from) : simd::load_part(from, count);
}

// The tile's sums before and after the loop over k. `whole`: all its columns exist.
template <int Rows, int Vecs>
inline void start(const Tile& tile, bool whole, Vec (&sums)[Rows][Vecs]) {
#pragma GCC unroll 16
  for (int v = 0; v < Vecs; ++v) {
    const int64_t column = v * simd::kLanes;
    const int64_t count =
        whole ? simd::kLanes : std::clamp<int64_t>(tile.columns - column, 0, simd::kLanes);
    Vec bias{};
    if (tile.bias != nullptr) bias = load_some(tile.bias + column, whole, count);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      sums[r][v] = bias;
      if (tile.accumulate) {
        sums[r][v] = load_some(tile.result + r * tile.result_stride + column, whole, count);
      }
    }
  }
}

template <int Rows, int Vecs, typename Function>
inline void finish_with(const Tile& tile, bool whole, const Vec (&sums)[Rows][Vecs],
                        Function rounded) {
  const Vec min = simd::splat(tile.min);
  const Vec max = simd::splat(tile.max);
#pragma GCC unroll 16
  for (int v = 0; v < Vecs; ++v) {
    const int64_t column = v * simd::kLanes;
    const int64_t count = std::clamp<int64_t>(tile.columns - column, 0, simd::kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      float* to = tile.result + r * tile.result_stride + column;
      const Vec sum = tile.last ? rounded(simd::clamp(sums[r][v], min, max)) : sums[r][v];
      if (whole) {
        simd::store(to, sum);
      } else {
        simd::store_part(to, sum, count);
      }
    }
  }
}

template <int Rows, int Vecs>
inline void finish(const Tile& tile, bool whole, const Vec (&sums)[Rows][Vecs]) {
  switch (tile.precision) {
    case Precision::Float32:
      return finish_with(tile, whole, sums, [](Vec sum) { return sum; });
    case Precision::Float16:
      return finish_with(tile, whole, sums, simd::to_float16);
    case Precision::BFloat16:
      return finish_with(tile, whole, sums, simd::to_bfloat16);
  }
}

// Numbers: of the right factor; see half.h.
template <int Rows, int Panels, typename Numbers>
void multiply_tile(const Tile& tile) {
  constexpr int kTileVecs = Panels * kVecs;
  Vec sums[Rows][kTileVecs];
  const bool whole = tile.columns >= Panels * kPanelWidth;
  if (whole) {
    start<Rows, kTileVecs>(tile, true, sums);
  } else {
    start<Rows, kTileVecs>(tile, false, sums);
  }
  const float* left = tile.left;
  const auto* right = static_cast<const typename Numbers::Stored*>(tile.right);
  for (int64_t k = 0; k < tile.depth; ++k) {
    Vec columns[kTileVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kTileVecs; ++v) {
      columns[v] =
          Numbers::load(right + (v / kVecs) * tile.panel_stride + (v % kVecs) * simd::kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec value = simd::splat(left[r * tile.left_stride]);
#pragma GCC unroll 16
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] += value * columns[v];
    }
    ++left;
    right += tile.right_step;
  }
  if (whole) {
    finish<Rows, kTileVecs>(tile, true, sums);
  } else {
    finish<Rows, kTileVecs>(tile, false, sums);
  }
}

using TileKernel = void (*)(const Tile& tile);

template <int Rows, typename Numbers>
TileKernel kernel_for_panels(int64_t panels) {
  if constexpr (panels_for(Rows) >= 4) {
    if (panels >= 4) return multiply_tile<Rows, 4, Numbers>;
  }
  if constexpr (panels_for(Rows) >= 3) {
    if (panels >= 3) return multiply_tile<Rows, 3, Numbers>;
  }
  if constexpr (panels_for(Rows) >= 2) {
    if (panels >= 2) return multiply_tile<Rows, 2, Numbers>;
  }
  return multiply_tile<Rows, 1, Numbers>;
}

template <int Rows = kTileRows, typename Numbers = simd::Float32Numbers>
TileKernel kernel_for(int64_t rows, int64_t panels) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return kernel_for<Rows - 1, Numbers>(rows, panels);
  }
  return kernel_for_panels<Rows, Numbers>(panels);
}

TileKernel halves_kernel_for(ggml_type type, int64_t rows, int64_t panels) {
  if (type == GGML_TYPE_F16) return kernel_for<kFewHalfRows, simd::Float16Numbers>(rows, panels);
  return kernel_for<kFewHalfRows, simd::BFloat16Numbers>(rows, panels);
}

// Tiles of nearly equal height: a last one of a single row would cost as much as three.
struct Tiling {
  explicit Tiling(int64_t rows)
      : tiles((rows + kTileRows - 1) / kTileRows), height(rows / tiles), higher(rows % tiles) {}
  int64_t tiles;
  int64_t height;
  int64_t higher;  // so many tiles have one row more
  int64_t panels() const { return panels_for(static_cast<int>(height + (higher > 0 ? 1 : 0))); }
};

// The left factor's elements of a block: where they lie, or gathered in the workspace.
GemmBlock block_of(const Gemm& op, Range rows, Range depth) {
  const float* left = op.left.data;
  if (left != nullptr) {
    left += rows.first * op.left.stride + depth.first;
    return {rows, depth, left, op.left.stride};
  }
  float* gathered = workspace().left.data();
  const int64_t count = depth.last - depth.first;
  op.left.gather(op.left.context, rows.first, rows.last - rows.first, depth.first, count, gathered);
  return {rows, depth, gathered, count};
}

// What the tiles of a block have in common, except for the panels.
Tile first_tile(const Gemm& op, const GemmBlock& block) {
  Tile tile{};
  tile.depth = block.depth_count();
  tile.left = block.left;
  tile.left_stride = block.left_stride;
  tile.result = op.result + block.rows.first * op.result_stride;
  tile.result_stride = op.result_stride;
  tile.accumulate = !block.starts();
  tile.bias = tile.accumulate ? nullptr : op.bias;
  tile.last = block.depth.last == op.k;
  tile.min = op.clamp.min;
  tile.max = op.clamp.max;
  tile.precision = op.clamp.precision;
  return tile;
}

// Rows x panels x a range of k: one panel group after another, each for all rows.
void multiply_block(const Gemm& op, const GemmBlock& block, Range panels) {
  const Tile start = first_tile(op, block);
  const int64_t rows = block.row_count();
  const Tiling tiling(rows);
  const bool halves = reads_halves(op.right, rows);
  for (int64_t first = panels.first; first < panels.last; first += tiling.panels()) {
    const int64_t count = std::min(tiling.panels(), panels.last - first);
    const Panels right = prepare_right(op, rows, first, count, block.depth.first, start.depth,
                                       workspace().right.data());
    const int64_t column = first * kPanelWidth;
    Tile tile = start;
    tile.right = right.data;
    tile.right_step = right.step;
    tile.panel_stride = right.stride;
    tile.columns = op.n - column;
    tile.result += column;
    if (tile.bias != nullptr) tile.bias += column;
    for (int64_t i = 0; i < tiling.tiles; ++i) {
      const int64_t height = tiling.height + (i < tiling.higher ? 1 : 0);
      (halves ? halves_kernel_for(op.right.type, height, count) : kernel_for(height, count))(tile);
      tile.left += height * tile.left_stride;
      tile.result += height * tile.result_stride;
    }
  }
}

int64_t blocks_of(int64_t count, int64_t most) { return (count + most - 1) / most; }

// Block `i` of `blocks`; they start at multiples of `grain`.
Range block_at(Range range, int64_t i, int64_t blocks, int64_t grain) {
  const int64_t grains = blocks_of(range.last - range.first, grain);
  const auto start = [&](int64_t block) {
    return std::min(range.first + grains * block / blocks * grain, range.last);
  };
  return {start(i), start(i + 1)};
}

}  // namespace

void gemm(const Gemm& op, int ith, int nth) {
  if (op.right.integers.bits != 0 && op.left.data != nullptr && op.m <= kFewRows) {
    return few_rows_times_integers(op, ith, nth);
  }
  const int64_t panel_count = (op.n + kPanelWidth - 1) / kPanelWidth;
  Range rows{0, op.m};
  Range panels{0, panel_count};
  // The longer side is shared out: so each thread reads the least of the other factor. To expand
  // panels takes longer than to read rows that lie there.
  const bool expands = op.right.columns == Columns::Packed && op.right.type != GGML_TYPE_F32;
  const bool shares_panels = expands && op.left.data != nullptr &&
                             (panel_count % nth == 0 || panel_count >= kPanelsToShare * nth);
  if (!shares_panels && (op.m + kTileRows - 1) / kTileRows >= panel_count) {
    rows = part_of(op.m, ith, nth);
  } else {
    panels = part_of(panel_count, ith, nth);
  }
  if (panels.first == panels.last) return;
  // Blocks of nearly equal size: a small last one would read as much for less.
  const int64_t row_blocks = blocks_of(rows.last - rows.first, kBlockRows);
  const int64_t depth_blocks = blocks_of(op.k, kBlockDepth);
  for (int64_t i = 0; i < row_blocks; ++i) {
    const Range block_rows = block_at(rows, i, row_blocks, 1);
    for (int64_t k = 0; k < depth_blocks; ++k) {
      const Range depth = block_at({0, op.k}, k, depth_blocks, kDepthGrain);
      const GemmBlock block = block_of(op, block_rows, depth);
      const Means means = fastest_means(op, block.row_count(), panels.last - panels.first,
                                        block.depth_count());
      if (means == Means::Vectors) {
        multiply_block(op, block, panels);
      } else {
        multiply_bfloat16(means, op, block, panels, multiply_block);
      }
    }
  }
}

}  // namespace ggml_delegate
