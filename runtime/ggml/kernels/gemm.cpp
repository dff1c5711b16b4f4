#include "gemm.h"

#include <ggml-cpu.h>

#include <algorithm>
#include <array>
#include <memory>

#include "half.h"
#include "integers.h"
#include "simd.h"
#include "work.h"

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
constexpr int kFewHalfRows = std::min(kTileRows, 4);

// Few rows leave registers for more columns, and need them to hide the latency of a sum.
constexpr int panels_for(int rows) {
  const int fit = kTileSums / (rows * kVecs);
  return fit < 1 ? 1 : (fit > kMaxPanels ? kMaxPanels : fit);
}

constexpr int64_t kBlockDepth = 768;
constexpr int64_t kBlockRows = 132;
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

// Whether so many rows read half-precision panels as they are: to expand them takes longer.
bool reads_halves(const RightFactor& right, int64_t rows) {
  return right.columns == Columns::Packed && rows <= kFewHalfRows &&
         (right.type == GGML_TYPE_F16 || right.type == GGML_TYPE_BF16);
}

TileKernel halves_kernel_for(ggml_type type, int64_t rows, int64_t panels) {
  if (type == GGML_TYPE_F16) return kernel_for<kFewHalfRows, simd::Float16Numbers>(rows, panels);
  return kernel_for<kFewHalfRows, simd::BFloat16Numbers>(rows, panels);
}

// The part of the right factor that a group of tiles reads.
struct Panels {
  const void* data;
  int64_t step;
  int64_t stride;
};

// Rows k0 .. k0 + depth of one panel of a right factor whose rows are columns.
void transpose_panel(const float* from, int64_t stride, int64_t columns, int64_t depth,
                     float* panel) {
  for (int64_t column = 0; column < kPanelWidth; ++column) {
    const float* source = from + column * stride;
    for (int64_t k = 0; k < depth; ++k) {
      panel[k * kPanelWidth + column] = column < columns ? source[k] : 0.0F;
    }
  }
}

// Rows k0 .. k0 + depth of a packed panel that does not hold float32.
void expand_panel(const Gemm& op, int64_t number, int64_t k0, int64_t depth, float* panel) {
  const RightFactor& right = op.right;
  const int64_t offset = (number * op.k + k0) * kPanelWidth;
  const int64_t count = depth * kPanelWidth;
  if (right.integers.bits != 0) {
    expand_integers(right, op.k, number, k0, depth, panel);
  } else if (right.type == GGML_TYPE_F16) {
    ggml_cpu_fp16_to_fp32(static_cast<const ggml_fp16_t*>(right.data) + offset, panel, count);
  } else {
    ggml_cpu_bf16_to_fp32(static_cast<const ggml_bf16_t*>(right.data) + offset, panel, count);
  }
}

void copy_panel(const float* from, int64_t stride, int64_t columns, int64_t depth, float* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t column = 0; column < kPanelWidth; ++column) {
      panel[k * kPanelWidth + column] = column < columns ? from[k * stride + column] : 0.0F;
    }
  }
}

// Panels first .. first + count at k0 .. k0 + depth: in place where they can be read so, else
// in the workspace.
Panels prepare_right(const Gemm& op, int64_t rows, int64_t first, int64_t count, int64_t k0,
                     int64_t depth, float* space) {
  const RightFactor& right = op.right;
  const auto* data = static_cast<const float*>(right.data);
  const bool whole = (first + count) * kPanelWidth <= op.n;
  if (right.columns == Columns::Packed && right.type == GGML_TYPE_F32) {
    return {data + (first * op.k + k0) * kPanelWidth, kPanelWidth, op.k * kPanelWidth};
  }
  if (reads_halves(right, rows)) {
    const auto* halves = static_cast<const uint16_t*>(right.data);
    return {halves + (first * op.k + k0) * kPanelWidth, kPanelWidth, op.k * kPanelWidth};
  }
  if (right.columns == Columns::RowMajor && whole) {
    return {data + k0 * right.stride + first * kPanelWidth, right.stride, kPanelWidth};
  }
  for (int64_t i = 0; i < count; ++i) {
    float* panel = space + i * depth * kPanelWidth;
    const int64_t column = (first + i) * kPanelWidth;
    const int64_t columns = std::min(op.n - column, kPanelWidth);
    if (right.columns == Columns::Packed) {
      expand_panel(op, first + i, k0, depth, panel);
    } else if (right.columns == Columns::RowMajor) {
      copy_panel(data + k0 * right.stride + column, right.stride, columns, depth, panel);
    } else {
      transpose_panel(data + column * right.stride + k0, right.stride, columns, depth, panel);
    }
  }
  return {space, kPanelWidth, depth * kPanelWidth};
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

// What the tiles of a block have in common, except for the panels.
Tile block_tile(const Gemm& op, Range rows, Range depth) {
  Tile tile{};
  tile.depth = depth.last - depth.first;
  if (op.left.data != nullptr) {
    tile.left = op.left.data + rows.first * op.left.stride + depth.first;
    tile.left_stride = op.left.stride;
  } else {
    float* block = workspace().left.data();
    op.left.gather(op.left.context, rows.first, rows.last - rows.first, depth.first, tile.depth,
                   block);
    tile.left = block;
    tile.left_stride = tile.depth;
  }
  tile.result = op.result + rows.first * op.result_stride;
  tile.result_stride = op.result_stride;
  tile.accumulate = depth.first > 0;
  tile.bias = tile.accumulate ? nullptr : op.bias;
  tile.last = depth.last == op.k;
  tile.min = op.clamp.min;
  tile.max = op.clamp.max;
  tile.precision = op.clamp.precision;
  return tile;
}

// Rows x panels x a range of k: one panel group after another, each for all rows.
void multiply_block(const Gemm& op, Range rows, Range panels, Range depth) {
  const Tile block = block_tile(op, rows, depth);
  const Tiling tiling(rows.last - rows.first);
  const bool halves = reads_halves(op.right, rows.last - rows.first);
  for (int64_t first = panels.first; first < panels.last; first += tiling.panels()) {
    const int64_t count = std::min(tiling.panels(), panels.last - first);
    const Panels right = prepare_right(op, rows.last - rows.first, first, count, depth.first,
                                       block.depth, workspace().right.data());
    const int64_t column = first * kPanelWidth;
    Tile tile = block;
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

Range block_at(Range range, int64_t i, int64_t blocks) {
  const int64_t count = range.last - range.first;
  return {range.first + count * i / blocks, range.first + count * (i + 1) / blocks};
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
    const Range block = block_at(rows, i, row_blocks);
    for (int64_t k = 0; k < depth_blocks; ++k) {
      multiply_block(op, block, panels, block_at({0, op.k}, k, depth_blocks));
    }
  }
}

}  // namespace ggml_delegate
