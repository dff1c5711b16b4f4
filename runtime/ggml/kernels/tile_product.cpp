#include "tile_product.h"

#include <algorithm>
#include <array>
#include <memory>

#include "half.h"
#include "parts.h"
#include "simd.h"
#include "tiles.h"

namespace ggml_delegate {

#if defined(GGD_TILES)
namespace {

using simd::Vec;

constexpr int64_t kMostTiles = (kBlockRows + kTileHeight - 1) / kTileHeight;
constexpr int64_t kMostSteps = kBlockDepth / kTileDepth;
// Of the right factor, so much is made ready at a time: it stays in the first-level cache.
constexpr int64_t kChunk = 128;
constexpr int64_t kChunkSteps = kChunk / kTileDepth;
static_assert(kBlockDepth % kTileDepth == 0 && kDepthGrain == kTileDepth);

constexpr int kMostGroups = static_cast<int>(kChunkSteps);
// Sums of two tiles below each other.
constexpr int64_t kPairSums = 2 * kTileHeight * kSumsStride;

// What scales the products of a group.
struct GroupTerms {
  alignas(64) float scales[kTilePanels][kPanelWidth];
  alignas(64) float minimums[kTilePanels][kPanelWidth];
  alignas(64) float row_sums[2][kTileHeight];  // of the left factor, that meet the minimums
};

struct Workspace {
  alignas(64) std::array<uint16_t, kMostTiles * kMostSteps * kStepElements> left;
  alignas(64) std::array<uint16_t, kTilePanels * kChunkSteps * kTileElements> right;
  alignas(64) std::array<float, kMostTiles * kTileHeight * kSumsStride> sums;
  alignas(64) std::array<float, kMostGroups * kPairSums> group_sums;
  std::array<GroupTerms, kMostGroups> terms;
  alignas(64) std::array<float, kMostTiles * kMostSteps * kTileHeight> row_sums;
};

// One per thread, made at its first product.
Workspace& workspace() {
  thread_local const std::unique_ptr<Workspace> space(new Workspace);
  return *space;
}

// Whether one part stands for each element of the right factor, as tiles take it.
bool takes(const Gemm& op) {
  const IntegersParams& integers = op.right.integers;
  if (op.right.columns != Columns::Packed) return false;
  if (integers.bits == 0) return op.right.type == GGML_TYPE_BF16;
  return integers.group % kTileDepth == 0 || integers.group >= op.k;
}

class TileProduct {
 public:
  TileProduct(const Gemm& op, const GemmBlock& block)
      : op_(op),
        block_(block),
        tiles_(block.row_count()),
        steps_(steps_of(block.depth_count())),
        space_(workspace()),
        minimums_(op.right.integers.bits != 0 && op.right.integers.offsets == Offsets::Minimums) {
    left_ = split_left(block.left, block.left_stride, block.row_count(), tiles_.height,
                       block.depth_count(), space_.left.data(),
                       minimums_ ? space_.row_sums.data() : nullptr);
  }

  bool usable() const { return left_.usable; }

  void multiply(Range panels, void (*by_vectors)(const Gemm&, const GemmBlock&, Range)) {
    const TileShape shape(tiles_.height, kTileDepth * static_cast<int64_t>(sizeof(uint16_t)));
    for (int64_t first = panels.first; first < panels.last; first += kTilePanels) {
      first_ = first;
      count_ = std::min(panels.last - first, kTilePanels);
      simd::fill(space_.sums.data(), 0.0F, block_.row_count() * kSumsStride);
      if (!add_panels()) {
        by_vectors(op_, block_, {first, first + count_});
        continue;
      }
      finish();
    }
  }

 private:
  struct Chunk {
    int64_t first;  // from the block's first element
    int64_t depth;
    int64_t step() const { return first / kTileDepth; }
  };
  template <typename Function>
  bool each_chunk(Function function) {
    for (int64_t first = 0; first < block_.depth_count(); first += kChunk) {
      if (!function(Chunk{first, std::min(kChunk, block_.depth_count() - first)})) return false;
    }
    return true;
  }

  uint16_t* right(int64_t panel) {
    return space_.right.data() + panel * kChunkSteps * kTileElements;
  }

  // False if one of the panels has numbers that tiles do not take.
  bool add_panels() {
    return each_chunk([&](const Chunk& chunk) {
      const int64_t k = block_.depth.first + chunk.first;
      for (int64_t panel = 0; panel < count_; ++panel) {
        if (!take_right(op_.right, op_.k, first_ + panel, k, chunk.depth, right(panel))) {
          return false;
        }
      }
      for (int64_t tile = 0; tile < tiles_.count; tile += 2) {
        if (op_.right.integers.bits != 0) {
          add_groups(tile, chunk);
        } else {
          multiply_steps(tile, chunk, {0, steps_of(chunk.depth)}, group_sums(0));
          for (int64_t panel = 0; panel < count_; ++panel) {
            each_row(tile, panel * kPanelWidth, [&](int64_t, int64_t, int64_t at, Vec sum) {
              return sum + simd::load(group_sums(0) + at);
            });
          }
        }
      }
      return true;
    });
  }

  // A chunk of one or two tiles' rows: products of each group, then those scaled, all groups at
  // once, so that sums are read and written once.
  void add_groups(int64_t tile, const Chunk& chunk) {
    const IntegersParams& integers = op_.right.integers;
    const int64_t groups = (op_.k + integers.group - 1) / integers.group;
    int count = 0;
    for (int64_t at = 0; at < chunk.depth; ++count) {
      const int64_t k = block_.depth.first + chunk.first + at;
      const int64_t group = k / integers.group;
      const int64_t depth = std::min(chunk.depth - at, (group + 1) * integers.group - k);
      const Range steps{at / kTileDepth, at / kTileDepth + steps_of(depth)};
      multiply_steps(tile, chunk, steps, group_sums(count));
      GroupTerms& terms = space_.terms[static_cast<size_t>(count)];
      for (int64_t panel = 0; panel < count_; ++panel) {
        const int64_t place = ((first_ + panel) * groups + group) * kPanelWidth;
        simd::store(terms.scales[panel], simd::load(integers.scales, place));
        if (minimums_) simd::store(terms.minimums[panel], simd::load(integers.minimums, place));
      }
      if (minimums_) sum_rows(tile, {chunk.step() + steps.first, chunk.step() + steps.last}, terms);
      at += depth;
    }
    minimums_ ? add_terms<true>(tile, count) : add_terms<false>(tile, count);
  }

  // What the left factor's elements in `steps` of the block sum up to, row by row.
  void sum_rows(int64_t first, Range steps, GroupTerms& terms) const {
    for (int64_t i = 0; i < tiles_.at_a_time(first); ++i) {
      const float* sums = space_.row_sums.data() + (first + i) * steps_ * kTileHeight;
      for (int64_t row = 0; row < kTileHeight; row += simd::kLanes) {
        Vec sum{};
        for (int64_t step = steps.first; step < steps.last; ++step) {
          sum += simd::load(sums + step * kTileHeight + row);
        }
        simd::store(terms.row_sums[i] + row, sum);
      }
    }
  }

  template <bool Minimums>
  void add_terms(int64_t tile, int groups) {
    switch (groups) {
      case 1:
        return add_groups_of<1, Minimums>(tile);
      case 2:
        return add_groups_of<2, Minimums>(tile);
      case 3:
        return add_groups_of<3, Minimums>(tile);
      default:
        return add_groups_of<kMostGroups, Minimums>(tile);
    }
  }

  template <int Groups, bool Minimums>
  void add_groups_of(int64_t first) {
    for (int64_t panel = 0; panel < count_; ++panel) {
      Vec scales[Groups];
      [[maybe_unused]] Vec minimums[Groups];
#pragma GCC unroll 4
      for (int group = 0; group < Groups; ++group) {
        scales[group] = simd::load(space_.terms[group].scales[panel]);
        if constexpr (Minimums) minimums[group] = simd::load(space_.terms[group].minimums[panel]);
      }
      each_row(first, panel * kPanelWidth, [&](int64_t tile, int64_t row, int64_t at, Vec sum) {
#pragma GCC unroll 4
        for (int group = 0; group < Groups; ++group) {
          if constexpr (Minimums) {
            sum += simd::splat(space_.terms[group].row_sums[tile][row]) * minimums[group];
          }
          sum += simd::load(group_sums(group) + at) * scales[group];
        }
        return sum;
      });
    }
  }

  // Tile number `tile` and perhaps the next, times `steps` of the right factor's chunk.
  void multiply_steps(int64_t tile, const Chunk& chunk, Range steps, float* sums) {
    TileRun run{};
    run.left = space_.left.data() + (tile * steps_ + chunk.step() + steps.first) * kStepElements;
    run.left_stride = steps_ * kStepElements;
    run.right = right(0) + steps.first * kTileElements;
    run.right_stride = kChunkSteps * kTileElements;
    run.height = tiles_.height;
    run.steps = steps.last - steps.first;
    run.sums = sums;
    tile_kernel(left_.count, tiles_.at_a_time(tile), count_)(run);
  }

  float* group_sums(int group) { return space_.group_sums.data() + group * kPairSums; }

  // sum = function(which of the tiles, row of it, where the sums of that are, sum)
  template <typename Function>
  void each_row(int64_t first, int64_t column, Function function) {
    float* to = space_.sums.data() + first * tiles_.height * kSumsStride;
    int64_t at = column;
    for (int64_t tile = 0; tile < tiles_.at_a_time(first); ++tile) {
      const int64_t rows =
          std::min(tiles_.height, block_.row_count() - (first + tile) * tiles_.height);
      for (int64_t row = 0; row < rows; ++row, at += kSumsStride) {
        simd::store(to + at, function(tile, row, at, simd::load(to + at)));
      }
    }
  }

  void finish() const {
    const bool last = block_.depth.last == op_.k;
    const Vec min = simd::splat(op_.clamp.min);
    const Vec max = simd::splat(op_.clamp.max);
    for (int64_t panel = 0; panel < count_; ++panel) {
      const int64_t column = (first_ + panel) * kPanelWidth;
      const int64_t columns = std::min(op_.n - column, kPanelWidth);
      Vec bias{};
      if (op_.bias != nullptr) bias = simd::load_part(op_.bias + column, columns);
      const float* from = space_.sums.data() + panel * kPanelWidth;
      float* to = op_.result + block_.rows.first * op_.result_stride + column;
      for (int64_t row = 0; row < block_.row_count(); ++row) {
        const Vec before = block_.starts() ? bias : simd::load_part(to, columns);
        const Vec sum = simd::load(from) + before;
        simd::store_part(to, last ? simd::clamp(sum, min, max) : sum, columns);
        if (last) simd::round_to(op_.clamp.precision, to, columns);
        from += kSumsStride;
        to += op_.result_stride;
      }
    }
  }

  const Gemm& op_;
  const GemmBlock& block_;
  RowTiles tiles_;
  int64_t steps_;
  Workspace& space_;
  bool minimums_;
  Parts left_{};
  int64_t first_ = 0;  // panel of those that are being multiplied
  int64_t count_ = 0;  // of them
};

}  // namespace

bool tiles_are_faster(const Gemm& op, int64_t rows, int64_t panels, int64_t depth) {
  if (!takes(op) || !has_tiles()) return false;
  // In nanoseconds, as measured where other work runs on the processor beside this.
  const IntegersParams& integers = op.right.integers;
  const bool zeros = integers.offsets == Offsets::ZeroPoints;
  const bool minimums = integers.offsets == Offsets::Minimums;
  const auto count = [](int64_t a, int64_t b, double each) {
    return static_cast<double>(a) * static_cast<double>(b) * each;
  };
  const RowTiles tiles(rows);
  const int64_t steps = steps_of(depth);
  const int64_t groups = integers.bits == 0 ? 1 : (depth + integers.group - 1) / integers.group;
  const int64_t least_height = kTileHeight / 2;
  const int64_t tile_rows = tiles.count * std::max(tiles.height, least_height);
  const double by_vectors = count(rows * panels, depth, 0.25) + count(panels, depth, 0.6);
  const double by_tiles = count(tile_rows * panels, steps, 3.5) + count(rows, steps, 8) +
                          count(panels, depth, zeros ? 2 : 0.5) +
                          count(rows * panels, groups, minimums ? 1.6 : 1.1) +
                          count(rows, panels, 2);
  return by_tiles < by_vectors;
}

void multiply_by_tiles(const Gemm& op, const GemmBlock& block, Range panels,
                       void (*by_vectors)(const Gemm& op, const GemmBlock& block, Range panels)) {
  TileProduct product(op, block);
  if (!product.usable()) return by_vectors(op, block, panels);
  product.multiply(panels, by_vectors);
}

#else

bool tiles_are_faster(const Gemm& /*op*/, int64_t /*rows*/, int64_t /*panels*/, int64_t /*depth*/) {
  return false;
}

void multiply_by_tiles(const Gemm& op, const GemmBlock& block, Range panels,
                       void (*by_vectors)(const Gemm& op, const GemmBlock& block, Range panels)) {
  by_vectors(op, block, panels);
}

#endif

}  // namespace ggml_delegate
