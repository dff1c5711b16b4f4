#include "gemm.h"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>

#include "half.h"
#include "integers.h"
#include "pairs.h"
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

// An addition waits for the one before it: the elements of one row and panel go to so many sums in
// turn.
constexpr int kSumsOfOneRow = kTileSums / kVecs >= 4 ? 4 : 2;

// Per thread: with fewer, one thread may have a good deal more to do than another.
constexpr int64_t kPanelsToShare = 6;

struct Workspace {
  alignas(64) std::array<float, kBlockRows * kBlockDepth> left;
  alignas(64) std::array<float, kMaxPanels * kBlockDepth * kPanelWidth> right;
#if defined(GGD_PAIRS)
  alignas(64) std::array<uint32_t, kBlockRows * kBlockDepth / 2> left_pairs;
#endif
};

// One per thread, made at its first product.
Workspace& workspace() {
  thread_local const std::unique_ptr<Workspace> space(new Workspace);
  return *space;
}

struct Tile {
  const void* left;  // of the types that the kernel reads, as are all steps and strides
  int64_t left_stride;
  const void* right;
  int64_t right_step;    // between rows of a panel
  int64_t panel_stride;  // between panels
  int64_t depth;         // steps along k
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

// What is multiplied in one step along k: a number of each factor, those of the right one stored as
// half.h has it.
template <typename Numbers>
struct OfNumbers {
  using Left = float;
  using Right = typename Numbers::Stored;
  static Vec row(const Left* from) { return simd::splat(*from); }
  static Vec columns(const Right* from) { return Numbers::load(from); }
  static Vec add(Vec sum, Vec row, Vec columns) { return sum + row * columns; }
};

#if defined(GGD_PAIRS)
// Two of each.
struct OfPairs {
  using Left = uint32_t;
  using Right = uint32_t;
  static __m512bh row(const Left* from) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int32_t>(*from)));
  }
  static __m512bh columns(const Right* from) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
  }
  static Vec add(Vec sum, __m512bh row, __m512bh columns) {
    return _mm512_dpbf16_ps(sum, columns, row);
  }
};
#endif

template <int Rows, int Panels, typename Factors>
void multiply_tile(const Tile& tile) {
  constexpr int kTileVecs = Panels * kVecs;
  Vec sums[Rows][kTileVecs];
  const bool whole = tile.columns >= Panels * kPanelWidth;
  if (whole) {
    start<Rows, kTileVecs>(tile, true, sums);
  } else {
    start<Rows, kTileVecs>(tile, false, sums);
  }
  const auto* left = static_cast<const typename Factors::Left*>(tile.left);
  const auto* right = static_cast<const typename Factors::Right*>(tile.right);
  int64_t k = 0;
  if constexpr (Rows == 1 && Panels == 1) {
    Vec more[kSumsOfOneRow][kTileVecs] = {};
    for (; k + kSumsOfOneRow <= tile.depth; k += kSumsOfOneRow) {
#pragma GCC unroll 4
      for (int i = 0; i < kSumsOfOneRow; ++i) {
        const auto row = Factors::row(left + i);
#pragma GCC unroll 16
        for (int v = 0; v < kTileVecs; ++v) {
          const auto columns = Factors::columns(right + v * simd::kLanes);
          more[i][v] = Factors::add(more[i][v], row, columns);
        }
        right += tile.right_step;
      }
      left += kSumsOfOneRow;
    }
    for (int v = 0; v < kTileVecs; ++v) {
      for (int i = 1; i < kSumsOfOneRow; ++i) more[0][v] += more[i][v];
      sums[0][v] += more[0][v];
    }
  }
  for (; k < tile.depth; ++k) {
    decltype(Factors::columns(right)) columns[kTileVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kTileVecs; ++v) {
      columns[v] =
          Factors::columns(right + (v / kVecs) * tile.panel_stride + (v % kVecs) * simd::kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const auto row = Factors::row(left + r * tile.left_stride);
#pragma GCC unroll 16
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] = Factors::add(sums[r][v], row, columns[v]);
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

template <int Rows, typename Factors>
TileKernel kernel_for_panels(int64_t panels) {
  if constexpr (panels_for(Rows) >= 4) {
    if (panels >= 4) return multiply_tile<Rows, 4, Factors>;
  }
  if constexpr (panels_for(Rows) >= 3) {
    if (panels >= 3) return multiply_tile<Rows, 3, Factors>;
  }
  if constexpr (panels_for(Rows) >= 2) {
    if (panels >= 2) return multiply_tile<Rows, 2, Factors>;
  }
  return multiply_tile<Rows, 1, Factors>;
}

template <int Rows, typename Factors>
TileKernel kernel_for(int64_t rows, int64_t panels) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return kernel_for<Rows - 1, Factors>(rows, panels);
  }
  return kernel_for_panels<Rows, Factors>(panels);
}

// What a group of panels is multiplied as.
enum class Factors : uint8_t { Floats, Float16, BFloat16, Pairs };

TileKernel kernel_for(Factors factors, int64_t rows, int64_t panels) {
  switch (factors) {
    case Factors::Float16:
      return kernel_for<kFewHalfRows, OfNumbers<simd::Float16Numbers>>(rows, panels);
    case Factors::BFloat16:
      return kernel_for<kFewHalfRows, OfNumbers<simd::BFloat16Numbers>>(rows, panels);
#if defined(GGD_PAIRS)
    case Factors::Pairs:
      return kernel_for<kTileRows, OfPairs>(rows, panels);
#endif
    default:
      return kernel_for<kTileRows, OfNumbers<simd::Float32Numbers>>(rows, panels);
  }
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

// Whether the rows of a tile displace each other in the first-level cache: of addresses so far
// apart it keeps few.
bool rows_collide(int64_t rows, int64_t stride) {
#if defined(__aarch64__)
  constexpr int64_t kWays = 4;
#else
  constexpr int64_t kWays = 8;
#endif
  constexpr int64_t kForPanels = 2;  // what a tile reads beside its rows
  constexpr int64_t kPeriod = 4096;
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  const int64_t places = kPeriod / std::gcd(bytes, kPeriod);
  return std::min<int64_t>(rows, kTileRows) > places * (kWays - kForPanels);
}

// The left factor's elements of a block, which `panels` panels meet: where they lie, or in the
// workspace.
GemmBlock block_of(const Gemm& op, Range rows, Range depth, int64_t panels) {
  constexpr int64_t kPanelsWorthCopies = 8;
  const float* left = op.left.data;
  float* space = workspace().left.data();
  const int64_t count = depth.last - depth.first;
  const int64_t height = rows.last - rows.first;
  if (left == nullptr) {
    op.left.gather(op.left.context, rows.first, height, depth.first, count, space);
    return {rows, depth, space, count};
  }
  left += rows.first * op.left.stride + depth.first;
  const int64_t stride = count + simd::kLanes;
  if (panels < kPanelsWorthCopies || !rows_collide(height, op.left.stride) ||
      rows_collide(height, stride) || height * stride > kBlockRows * kBlockDepth) {
    return {rows, depth, left, op.left.stride};
  }
  for (int64_t row = 0; row < height; ++row) {
    std::copy_n(left + row * op.left.stride, count, space + row * stride);
  }
  return {rows, depth, space, stride};
}

// Whether a row is multiplied with one panel after another, and these as they lie: weights of such
// a size come from memory, which is slower at several streams than at one.
bool reads_one_stream(const Gemm& op) {
  constexpr int64_t kLeastElements = 1 << 19;
  const RightFactor& right = op.right;
  return op.m == 1 && op.left.data != nullptr && right.columns == Columns::Packed &&
         (right.type == GGML_TYPE_F32 || reads_halves(right, op.m)) &&
         op.n * op.k >= kLeastElements;
}

// What the tiles of a block have in common, except for the factors.
Tile first_tile(const Gemm& op, const GemmBlock& block) {
  Tile tile{};
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

// The rows of a block times one group of panels after another.
class BlockProduct {
 public:
  BlockProduct(const Gemm& op, const GemmBlock& block)
      : op_(op), block_(block), tiling_(block.row_count()), start_(first_tile(op, block)) {
#if defined(GGD_PAIRS)
    pairs_ = takes_pairs() && pair_left(block, workspace().left_pairs.data());
#endif
  }

  int64_t at_a_time() const { return reads_one_stream(op_) ? 1 : tiling_.panels(); }

  void multiply(int64_t first, int64_t count) {
    Tile tile = start_;
    const Factors factors = set_factors(first, count, tile);
    const int64_t column = first * kPanelWidth;
    tile.columns = op_.n - column;
    tile.result += column;
    if (tile.bias != nullptr) tile.bias += column;
    for (int64_t i = 0; i < tiling_.tiles; ++i) {
      const int64_t height = tiling_.height + (i < tiling_.higher ? 1 : 0);
      kernel_for(factors, height, count)(tile);
      const int64_t step = height * tile.left_stride;
      tile.left = factors == Factors::Pairs
                      ? static_cast<const void*>(static_cast<const uint32_t*>(tile.left) + step)
                      : static_cast<const float*>(tile.left) + step;
      tile.result += height * tile.result_stride;
    }
  }

 private:
#if defined(GGD_PAIRS)
  // Results that are rounded to bfloat16 tell that the left factor has been, too.
  bool takes_pairs() const {
    const RightFactor& right = op_.right;
    return right.columns == Columns::Packed && right.type == GGML_TYPE_BF16 &&
           op_.clamp.precision == Precision::BFloat16 && block_.row_count() > kFewHalfRows &&
           has_fast_pairs();
  }

  // False if the instructions do not take a number of those panels.
  bool pair_panels(int64_t first, int64_t count, Tile& tile) const {
    auto* space = reinterpret_cast<uint32_t*>(workspace().right.data());
    const int64_t stride = (block_.depth_count() + 1) / 2 * kPanelWidth;
    for (int64_t i = 0; i < count; ++i) {
      const auto* rows = static_cast<const uint16_t*>(op_.right.data) +
                         ((first + i) * op_.k + block_.depth.first) * kPanelWidth;
      if (!pair_rows(rows, block_.depth_count(), space + i * stride)) return false;
    }
    tile.right = space;
    tile.right_step = kPanelWidth;
    tile.panel_stride = stride;
    tile.left = workspace().left_pairs.data();
    tile.left_stride = tile.depth = (block_.depth_count() + 1) / 2;
    return true;
  }
#endif

  Factors set_factors(int64_t first, int64_t count, Tile& tile) const {
#if defined(GGD_PAIRS)
    if (pairs_ && pair_panels(first, count, tile)) return Factors::Pairs;
#endif
    const int64_t rows = block_.row_count();
    const Panels right = prepare_right(op_, rows, first, count, block_.depth.first,
                                       block_.depth_count(), workspace().right.data());
    tile.right = right.data;
    tile.right_step = right.step;
    tile.panel_stride = right.stride;
    tile.left = block_.left;
    tile.left_stride = block_.left_stride;
    tile.depth = block_.depth_count();
    if (!reads_halves(op_.right, rows)) return Factors::Floats;
    return op_.right.type == GGML_TYPE_F16 ? Factors::Float16 : Factors::BFloat16;
  }

  const Gemm& op_;
  const GemmBlock& block_;
  Tiling tiling_;
  Tile start_;
  [[maybe_unused]] bool pairs_ = false;
};

// Rows x panels x a range of k: one panel group after another, each for all rows.
void multiply_block(const Gemm& op, const GemmBlock& block, Range panels) {
  BlockProduct product(op, block);
  for (int64_t first = panels.first; first < panels.last; first += product.at_a_time()) {
    product.multiply(first, std::min(product.at_a_time(), panels.last - first));
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
  const int64_t depth_blocks = reads_one_stream(op) ? 1 : blocks_of(op.k, kBlockDepth);
  for (int64_t i = 0; i < row_blocks; ++i) {
    const Range block_rows = block_at(rows, i, row_blocks, 1);
    for (int64_t k = 0; k < depth_blocks; ++k) {
      const Range depth = block_at({0, op.k}, k, depth_blocks, kDepthGrain);
      const GemmBlock block = block_of(op, block_rows, depth, panels.last - panels.first);
      if (tiles_are_faster(op, block.row_count(), panels.last - panels.first,
                           block.depth_count())) {
        multiply_by_tiles(op, block, panels, multiply_block);
      } else {
        multiply_block(op, block, panels);
      }
    }
  }
}

}  // namespace ggml_delegate
