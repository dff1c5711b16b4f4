#include "byte_tile_product.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "half.h"
#include "simd.h"
#include "tiles.h"

namespace ggml_delegate {

#if defined(GGD_TILES)
namespace {

using simd::kAllLanes;
using simd::Vec;

using Bytes = __m512i;

constexpr int64_t kDeepest = 64;  // bytes in a row of a tile
constexpr int64_t kShallow = kDeepest / 2;
// Of groups of kShallow integers of 4 bits, a tile holds what is added up for the rows' zero points
// as well: four bytes more.
constexpr int64_t kSpare = 4;
constexpr int64_t kBlockRows = 128;
constexpr int64_t kMostTiles = kBlockRows / kTileHeight;
// Of the right factor, so much is made ready at a time: it stays in the first-level cache.
constexpr int64_t kChunk = 512;
constexpr int64_t kChunkBytes = kChunk / kShallow * (kShallow + kSpare) * kPanelWidth;
constexpr int64_t kBlockSums = kMostTiles * kTileHeight * kSumsStride;
// So many short groups are summed up before their sums are scaled.
constexpr int64_t kBatch = 4;
constexpr int64_t kLongestOfBatch = kChunk / kBatch;
// Between sums of two groups; not a multiple of 4 KiB, where loads wait for stores.
constexpr int64_t kBatchSums = (2 * kTileHeight + 1) * kSumsStride;
constexpr int64_t kGroupSums = std::max(kBlockSums, kBatch* kBatchSums);
// So many products of 8 bits sum up to integers that float32 has.
constexpr int64_t kExact = 512;

struct Workspace {
  alignas(64) std::array<int8_t, kTilePanels * kChunkBytes> right;
  alignas(64) std::array<int32_t, kGroupSums> group_sums;
  alignas(64) std::array<float, kBlockSums> sums;
  std::array<int32_t, kMostTiles * kTileHeight> zeros;  // of the rows
  std::vector<uint8_t> left;
  std::vector<int32_t> row_sums;
};

// One per thread, made at its first product.
Workspace& workspace() {
  thread_local const std::unique_ptr<Workspace> space(new Workspace);
  return *space;
}

inline Bytes columns_of(const int8_t* rows) {  // [4][16] as [16][4]
  alignas(64) static const uint8_t kTransposed[64] = {
      0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21,
      37, 53, 6,  22, 38, 54, 7,  23, 39, 55, 8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58,
      11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  return _mm512_maskz_permutexvar_epi8(~__mmask64{0}, _mm512_load_si512(kTransposed),
                                       _mm512_loadu_si512(rows));
}

// Integers of 4 bits at the lower end of each byte, as bytes with a sign.
inline Bytes signed_bytes(Bytes low) {
  const Bytes eight = _mm512_set1_epi8(8);
  return _mm512_maskz_sub_epi8(~__mmask64{0}, _mm512_xor_si512(low, eight), eight);
}

// Four bytes to a column, which sum up to what its sum misses to 0: of 32 integers of 4 bits.
inline Bytes missing(__m512i sums) {
  const __m512i low = _mm512_set1_epi32(0xFF);
  const __m512i least = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
  __m512i bytes = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int i = 3; i >= 0; --i) {
    const __m512i quarter =
        _mm512_maskz_srai_epi32(kAllLanes, _mm512_add_epi32(least, _mm512_set1_epi32(i)), 2);
    bytes = _mm512_or_si512(_mm512_maskz_slli_epi32(kAllLanes, bytes, 8),
                            _mm512_and_si512(quarter, low));
  }
  return bytes;
}

inline Vec floats(__m512i v) { return _mm512_maskz_cvtepi32_ps(kAllLanes, v); }

class ByteTileProduct {
 public:
  ByteTileProduct(const IntegerProduct& op, Range rows)
      : op_(op),
        rows_(rows),
        tiles_(rows.last - rows.first),
        group_(std::min(op.integers.group, op.params->k)),
        step_(group_ == op.params->k || group_ % kDeepest == 0 ? kDeepest : kShallow),
        spare_(group_ == kShallow && step_ == kShallow && op.integers.bits == 4),
        depth_(step_ + (spare_ ? kSpare : 0)),
        chunk_(group_ < kChunk ? kChunk / group_ * group_ : kChunk),
        steps_((op.params->k + step_ - 1) / step_),
        zeros_(op.integers.offsets == Offsets::ZeroPoints),
        space_(workspace()) {
    take_rows();
  }

  void multiply(Range panels) {
    const TileShape shape(tiles_.height, depth_);
    for (int64_t first = panels.first; first < panels.last; first += kTilePanels) {
      first_ = first;
      count_ = std::min(panels.last - first, kTilePanels);
      simd::fill(space_.sums.data(), 0.0F, row_count() * kSumsStride);
      for (int64_t k = 0; k < op_.params->k; k += chunk_) {
        add_chunk(k, std::min(chunk_, op_.params->k - k));
      }
      finish();
    }
  }

 private:
  int64_t row_count() const { return rows_.last - rows_.first; }
  int64_t tile_bytes() const { return kTileHeight * depth_; }

  // The rows' integers as tiles [tile][step][row][depth], 0 beyond k, with their zero points in
  // bytes to spare; and for weights with zero points, their sums over each step without their own:
  // [row][step].
  void take_rows() {
    const int64_t k = op_.params->k;
    space_.left.resize(static_cast<size_t>(tiles_.count * steps_ * tile_bytes()));
    if (zeros_) space_.row_sums.resize(static_cast<size_t>(row_count() * steps_));
    for (int64_t row = 0; row < row_count(); ++row) {
      const RowInteger* from = op_.row(rows_.first + row);
      const int32_t zero = op_.header(rows_.first + row).zero;
      space_.zeros[static_cast<size_t>(row)] = zero;
      const uint32_t zeros = static_cast<uint32_t>(zero) * 0x01010101U;
      uint8_t* to = space_.left.data() + row / tiles_.height * steps_ * tile_bytes() +
                    row % tiles_.height * depth_;
      for (int64_t step = 0; step < steps_; ++step, to += tile_bytes()) {
        const int64_t count = std::min(step_, k - step * step_);
        const __mmask64 mask = ~__mmask64{0} >> (64 - count);
        const Bytes bytes = _mm512_maskz_loadu_epi8(mask, from + step * step_);
        _mm512_mask_storeu_epi8(to, ~__mmask64{0} >> (64 - step_), bytes);
        if (spare_) std::memcpy(to + step_, &zeros, kSpare);
        if (!zeros_) continue;
        const __m512i sums = _mm512_sad_epu8(bytes, _mm512_setzero_si512());
        alignas(64) std::array<int64_t, 8> eight;
        _mm512_store_si512(eight.data(), sums);
        int64_t sum = -zero * count;
        for (const int64_t part : eight) sum += part;
        space_.row_sums[static_cast<size_t>(row * steps_ + step)] = static_cast<int32_t>(sum);
      }
    }
  }

  int8_t* right(int64_t panel) { return space_.right.data() + panel * kChunkBytes; }
  int64_t right_offset(int64_t at) const { return at / step_ * depth_ * kPanelWidth; }

  // Rows k .. k + depth of a panel as tiles, [step][depth / 4][column][4], 0 beyond k, with what
  // the columns of a step miss to 0 in rows to spare.
  void take_columns(int64_t k, int64_t depth, int64_t panel) {
    const int64_t row_bits = kPanelWidth * op_.integers.bits;
    const int8_t* from = op_.weight + ((first_ + panel) * op_.params->k + k) * row_bits / 8;
    int8_t* to = right(panel);
    for (int64_t at = 0; at < depth; at += step_, to += depth_ * kPanelWidth) {
      const int64_t count = std::min(step_, depth - at);
      take_step(from + at * row_bits / 8, count, to);
      const int64_t taken = count * kPanelWidth;
      std::memset(to + taken, 0, static_cast<size_t>(step_ * kPanelWidth - taken));
      if (spare_) _mm512_storeu_si512(to + step_ * kPanelWidth, missing(sums_of(to, count)));
    }
  }

  void take_step(const int8_t* from, int64_t count, int8_t* to) const {
    if (op_.integers.bits == 8) {
      for (int64_t at = 0; at < count; at += 4) {
        _mm512_storeu_si512(to + at * kPanelWidth, columns_of(from + at * kPanelWidth));
      }
      return;
    }
    const Bytes low = _mm512_set1_epi8(0xF);
    for (int64_t at = 0; at < count; at += 8) {
      const Bytes both = columns_of(from + at * kPanelWidth / 2);
      const Bytes high = _mm512_maskz_srli_epi16(~__mmask32{0}, both, 4);
      int8_t* rows = to + at * kPanelWidth;
      _mm512_storeu_si512(rows, signed_bytes(_mm512_and_si512(both, low)));
      _mm512_storeu_si512(rows + 64, signed_bytes(_mm512_and_si512(high, low)));
    }
  }

  static __m512i sums_of(const int8_t* rows, int64_t count) {
    __m512i sums = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += 4) {
      sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1),
                                 _mm512_loadu_si512(rows + i * kPanelWidth));
    }
    return sums;
  }

  // What columns of a panel, made ready, sum up to from `at` on.
  __m512i column_sums(int64_t panel, int64_t at, int64_t depth) {
    __m512i sums = _mm512_setzero_si512();
    for (int64_t step = 0; step < depth; step += step_) {
      const int8_t* rows = right(panel) + right_offset(at + step);
      sums = _mm512_add_epi32(sums, sums_of(rows, std::min(step_, depth - step)));
    }
    return sums;
  }

  // Part of a group that lies in a chunk of the right factor.
  struct Piece {
    int64_t group;
    int64_t k;
    int64_t at;  // in the chunk
    int64_t depth;
    bool first;
    bool last;
  };

  void add_chunk(int64_t k, int64_t depth) {
    for (int64_t panel = 0; panel < count_; ++panel) take_columns(k, depth, panel);
    if (group_ <= kLongestOfBatch) {
      const Range groups{k / group_, (k + depth + group_ - 1) / group_};
      for (int64_t group = groups.first; group < groups.last; group += kBatch) {
        add_batch({group, std::min(group + kBatch, groups.last)}, k);
      }
      return;
    }
    for (int64_t at = 0; at < depth;) {
      Piece piece{};
      piece.group = (k + at) / group_;
      piece.k = k + at;
      piece.at = at;
      const int64_t start = piece.group * group_;
      const int64_t end = std::min(start + group_, op_.params->k);
      piece.depth = std::min(depth - at, end - piece.k);
      piece.first = piece.k == start;
      piece.last = piece.k + piece.depth == end;
      add_piece(piece);
      at += piece.depth;
    }
  }

  // Of two tiles below each other and a panel, from `at` in the chunk on.
  ByteTileRun run_of(int64_t tile, int64_t k, int64_t at, int64_t depth) {
    ByteTileRun run{};
    run.left = space_.left.data() + (tile * steps_ + k / step_) * tile_bytes();
    run.left_stride = steps_ * tile_bytes();
    run.right = right(0) + right_offset(at);
    run.right_stride = kChunkBytes;
    run.height = tiles_.height;
    run.depth = depth_;
    run.steps = (depth + step_ - 1) / step_;
    return run;
  }

  // Rows of one or two tiles.
  Range rows_of(int64_t tile) const {
    const int64_t row = tile * tiles_.height;
    return {row, std::min(row + tiles_.at_a_time(tile) * tiles_.height, row_count())};
  }

  void add_batch(Range groups, int64_t k) {
    const int64_t count = groups.last - groups.first;
    Scales scales[kTilePanels][kBatch];
    for (int64_t panel = 0; panel < count_; ++panel) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t start = (groups.first + i) * group_;
        const int64_t depth = std::min(group_, op_.params->k - start);
        if (!spare_) column_sums_[panel] = column_sums(panel, start - k, depth);
        scales[panel][i] = scales_of(groups.first + i, panel);
      }
    }
    for (int64_t tile = 0; tile < tiles_.count; tile += 2) {
      const ByteTileKernel kernel = byte_tile_kernel(tiles_.at_a_time(tile), count_);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t start = (groups.first + i) * group_;
        ByteTileRun run = run_of(tile, start, start - k, std::min(group_, op_.params->k - start));
        run.sums = space_.group_sums.data() + i * kBatchSums;
        kernel(run);
      }
      const Range rows = rows_of(tile);
      for (int64_t panel = 0; panel < count_; ++panel) {
        const int64_t column = panel * kPanelWidth;
        const int32_t* from = space_.group_sums.data() + column;
        float* to = space_.sums.data() + rows.first * kSumsStride + column;
        if (spare_ && !zeros_ && count == kBatch) {
          add_whole(scales[panel], rows.last - rows.first, from, to);
          continue;
        }
        for (int64_t i = 0; i < count; ++i) {
          add_scaled(scales[panel][i], groups.first + i, rows, from + i * kBatchSums, to);
        }
      }
    }
  }

  void add_piece(const Piece& piece) {
    for (int64_t panel = 0; panel < count_; ++panel) {
      __m512i& sums = column_sums_[panel];
      if (piece.first) sums = _mm512_setzero_si512();
      sums = _mm512_add_epi32(sums, column_sums(panel, piece.at, piece.depth));
    }
    Scales scales[kTilePanels];
    for (int64_t panel = 0; panel < count_; ++panel) scales[panel] = scales_of(piece.group, panel);
    for (int64_t tile = 0; tile < tiles_.count; tile += 2) {
      ByteTileRun run = run_of(tile, piece.k, piece.at, piece.depth);
      // A group that goes on in the next chunk keeps its sums.
      const Range rows = rows_of(tile);
      run.sums =
          space_.group_sums.data() + (piece.first && piece.last ? 0 : rows.first * kSumsStride);
      run.accumulate = !piece.first;
      byte_tile_kernel(tiles_.at_a_time(tile), count_)(run);
      if (!piece.last) continue;
      for (int64_t panel = 0; panel < count_; ++panel) {
        const int64_t column = panel * kPanelWidth;
        add_scaled(scales[panel], piece.group, rows, run.sums + column,
                   space_.sums.data() + rows.first * kSumsStride + column);
      }
    }
  }

  // What stands for a group's integers in a panel's columns.
  struct Scales {
    Vec scale;
    Vec zeros;
    __m512i of_columns;  // sums
  };

  Scales scales_of(int64_t group, int64_t panel) const {
    const int64_t groups = (op_.params->k + group_ - 1) / group_;
    const int64_t at = ((first_ + panel) * groups + group) * kPanelWidth;
    Scales scales{simd::load(op_.integers.scales, at), Vec{}, column_sums_[panel]};
    if (zeros_) {
      const auto* bytes = reinterpret_cast<const __m128i*>(op_.integers.zeros + at);
      scales.zeros = floats(_mm512_maskz_cvtepi8_epi32(kAllLanes, _mm_loadu_si128(bytes)));
    }
    return scales;
  }

  // Sums of kBatch groups onto those of all, scaled: of (row - its zero) * column.
  static void add_whole(const Scales (&scales)[kBatch], int64_t rows, const int32_t* from,
                        float* to) {
    for (int64_t row = 0; row < rows; ++row) {
      Vec sum = simd::load(to);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kBatch; ++i) {
        sum += floats(_mm512_loadu_si512(from + i * kBatchSums)) * scales[i].scale;
      }
      simd::store(to, sum);
      from += kSumsStride;
      to += kSumsStride;
    }
  }

  // Sums of a group onto those of all: of (row - its zero) * (column - its zero), scaled.
  void add_scaled(const Scales& scales, int64_t group, Range rows, const int32_t* from, float* to) {
    const int64_t start = group * group_;
    const Range steps{start / step_, (std::min(start + group_, op_.params->k) + step_ - 1) / step_};
    const Vec of_columns = floats(scales.of_columns);
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const __m512i raw = _mm512_loadu_si512(from);
      const int32_t zero = space_.zeros[static_cast<size_t>(row)];
      Vec sum;
      if (spare_) {
        sum = floats(raw);
      } else if (group_ <= kExact) {
        sum = floats(raw) - of_columns * static_cast<float>(zero);
      } else {
        const __m512i from_zero =
            _mm512_maskz_mullo_epi32(kAllLanes, scales.of_columns, _mm512_set1_epi32(zero));
        sum = floats(_mm512_sub_epi32(raw, from_zero));
      }
      if (zeros_) sum -= scales.zeros * row_sum(row, steps);
      simd::store(to, simd::load(to) + sum * scales.scale);
      from += kSumsStride;
      to += kSumsStride;
    }
  }

  float row_sum(int64_t row, Range steps) const {
    int32_t sum = 0;
    for (int64_t step = steps.first; step < steps.last; ++step) {
      sum += space_.row_sums[static_cast<size_t>(row * steps_ + step)];
    }
    return static_cast<float>(sum);
  }

  void finish() const {
    const ClampParams& clamp = op_.params->clamp;
    const Vec min = simd::splat(clamp.min);
    const Vec max = simd::splat(clamp.max);
    for (int64_t panel = 0; panel < count_; ++panel) {
      const int64_t column = (first_ + panel) * kPanelWidth;
      const int64_t columns = std::min(op_.params->n - column, kPanelWidth);
      Vec bias{};
      if (op_.bias != nullptr) bias = simd::load_part(op_.bias + column, columns);
      const float* from = space_.sums.data() + panel * kPanelWidth;
      float* to = op_.result + rows_.first * op_.params->n + column;
      for (int64_t row = 0; row < row_count(); ++row) {
        const float scale = op_.header(rows_.first + row).scale;
        const Vec sum = simd::load(from) * simd::splat(scale) + bias;
        simd::store_part(to, simd::clamp(sum, min, max), columns);
        simd::round_to(clamp.precision, to, columns);
        from += kSumsStride;
        to += op_.params->n;
      }
    }
  }

  const IntegerProduct& op_;
  Range rows_;
  RowTiles tiles_;
  int64_t group_;
  int64_t step_;   // along k, of a tile
  bool spare_;     // whether tiles hold what is added up for the rows' zero points
  int64_t depth_;  // bytes in a row of a tile
  int64_t chunk_;  // whole groups, if one fits
  int64_t steps_;
  bool zeros_;
  Workspace& space_;
  int64_t first_ = 0;  // panel of those that are being multiplied
  int64_t count_ = 0;  // of them
  __m512i column_sums_[kTilePanels];
};

}  // namespace

bool byte_tiles_are_faster(const IntegerProduct& op, Range rows, Range panels) {
  constexpr int64_t kLeastRows = 20;
  constexpr int64_t kLeastPanels = 2;
  constexpr int64_t kLeastDepth = 32;
  const int64_t k = op.params->k;
  const int64_t grain = op.integers.bits == 4 ? kShallow : kDeepest;
  const bool groups = op.integers.group >= k || op.integers.group % grain == 0;
  return has_tiles() && op.integers.offsets != Offsets::Minimums && groups && k >= kLeastDepth &&
         rows.last - rows.first >= kLeastRows && panels.last - panels.first >= kLeastPanels;
}

void multiply_bytes_by_tiles(const IntegerProduct& op, Range rows, Range panels) {
  for (int64_t row = rows.first; row < rows.last; row += kBlockRows) {
    ByteTileProduct(op, {row, std::min(row + kBlockRows, rows.last)}).multiply(panels);
  }
}

#else

bool byte_tiles_are_faster(const IntegerProduct& /*op*/, Range /*rows*/, Range /*panels*/) {
  return false;
}

void multiply_bytes_by_tiles(const IntegerProduct& /*op*/, Range /*rows*/, Range /*panels*/) {}

#endif

}  // namespace ggml_delegate
