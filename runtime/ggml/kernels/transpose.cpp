#include "transpose.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "simd.h"
#include "work.h"

// Elements are moved as floats, which changes no bit of them: nothing is computed.
namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

template <int Offset, size_t... I>
inline Vec zip(Vec a, Vec b, std::index_sequence<I...>) {
  return __builtin_shufflevector(
      a, b, static_cast<int>(Offset + I / 2 + (I % 2 == 0 ? 0 : sizeof...(I)))...);
}

// a[0] b[0] a[1] b[1] ... of the lower and of the upper halves.
inline Vec zip_low(Vec a, Vec b) { return zip<0>(a, b, std::make_index_sequence<kLanes>{}); }
inline Vec zip_high(Vec a, Vec b) {
  return zip<kLanes / 2>(a, b, std::make_index_sequence<kLanes>{});
}

// kLanes vectors as the rows of a matrix: each step shuffles rows as one does cards.
inline void transpose_vectors(Vec (&v)[kLanes]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = zip_low(v[i], v[i + kLanes / 2]);
      next[2 * i + 1] = zip_high(v[i], v[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = next[i];
  }
}

// A tile of at most kLanes x kLanes; strides are between rows.
struct Tile {
  const float* from;
  int64_t from_stride;
  float* to;
  int64_t to_stride;
};

void transpose_whole_tile(const Tile& tile) {
  Vec v[kLanes];
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) v[r] = simd::load(tile.from + r * tile.from_stride);
  transpose_vectors(v);
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c) simd::store(tile.to + c * tile.to_stride, v[c]);
}

void transpose_part_of_tile(const Tile& tile, int64_t rows, int64_t columns) {
  if (columns < kLanes / 2 && rows < kLanes / 2) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        tile.to[c * tile.to_stride + r] = tile.from[r * tile.from_stride + c];
      }
    }
    return;
  }
  Vec v[kLanes] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = tile.from + r * tile.from_stride;
    v[r] = columns == kLanes ? simd::load(from) : simd::load_part(from, columns);
  }
  transpose_vectors(v);
  for (int64_t c = 0; c < columns; ++c) {
    float* to = tile.to + c * tile.to_stride;
    rows == kLanes ? simd::store(to, v[c]) : simd::store_part(to, v[c], rows);
  }
}

// to[c][r] = from[r][c] for the columns [first, last).
struct Matrix {
  int64_t rows;
  int64_t from_stride;
  int64_t to_stride;

  void transpose(const float* from, float* to, int64_t first, int64_t last) const {
    for (int64_t c = first; c < last; c += kLanes) {
      const int64_t columns = std::min<int64_t>(last - c, kLanes);
      Tile tile{from + c, from_stride, to + c * to_stride, to_stride};
      int64_t r = 0;
      for (; r + kLanes <= rows && columns == kLanes; r += kLanes) {
        transpose_whole_tile(tile);
        tile.from += kLanes * from_stride;
        tile.to += kLanes;
      }
      for (; r < rows; r += kLanes) {
        transpose_part_of_tile(tile, std::min<int64_t>(rows - r, kLanes), columns);
        tile.from += kLanes * from_stride;
        tile.to += kLanes;
      }
    }
  }
};

// What a result dimension steps over.
struct Axis {
  int64_t size;
  int64_t from;  // strides in elements
  int64_t to;
};

struct Offsets {
  int64_t from = 0;
  int64_t to = 0;
};

// Where the `index`-th combination of the axes lies, the last axis fastest.
Offsets offsets(const RankVector<Axis>& axes, int64_t index) {
  Offsets result;
  for (size_t i = axes.size(); i-- > 0;) {
    const int64_t at = index % axes[i].size;
    index /= axes[i].size;
    result.from += at * axes[i].from;
    result.to += at * axes[i].to;
  }
  return result;
}

int64_t count(const RankVector<Axis>& axes) {
  int64_t result = 1;
  for (const Axis& axis : axes) result *= axis.size;
  return result;
}

// Rows whose elements are neighbours before and after.
void copy_rows(const float* from, float* to, const RankVector<Axis>& outer, int64_t length, int ith,
               int nth) {
  const Range rows = part_of(count(outer), ith, nth);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const Offsets at = offsets(outer, row);
    std::memcpy(to + at.to, from + at.from, static_cast<size_t>(length) * sizeof(float));
  }
}

}  // namespace

void transpose_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const TransposeParams*>(userdata);
  const auto* from = static_cast<const float*>(result->src[0]->data);
  auto* to = static_cast<float*>(result->data);
  const size_t rank = params.sizes.size();
  if (ggml_nelements(result) == 0) return;
  if (rank == 0) {
    if (ith == 0) to[0] = from[0];
    return;
  }
  // The result's dimensions: all but the last one, and but the one that is the source's last.
  Sizes from_strides = params.sizes;
  int64_t stride = 1;
  for (size_t i = rank; i-- > 0; stride *= params.sizes[i]) from_strides[i] = stride;
  RankVector<Axis> outer;
  Axis columns{1, 1, 1};
  stride = ggml_nelements(result);
  for (size_t i = 0; i + 1 < rank; ++i) {
    const uint8_t dim = params.axes[i];
    stride /= params.sizes[dim];
    const Axis axis{params.sizes[dim], from_strides[dim], stride};
    if (dim + size_t{1} == rank) {
      columns = axis;
    } else {
      outer.push_back(axis);
    }
  }
  const uint8_t last = params.axes[rank - 1];
  if (last + size_t{1} == rank) return copy_rows(from, to, outer, params.sizes[last], ith, nth);
  // Tiles of all matrices are shared out, columns by columns.
  const Matrix matrix{params.sizes[last], from_strides[last], columns.to};
  const int64_t tiles = (columns.size + kLanes - 1) / kLanes;
  const Range part = part_of(count(outer) * tiles, ith, nth);
  for (int64_t i = part.first; i < part.last;) {
    const int64_t run = std::min(tiles - i % tiles, part.last - i);
    const Offsets at = offsets(outer, i / tiles);
    matrix.transpose(from + at.from, to + at.to, i % tiles * kLanes,
                     std::min((i % tiles + run) * kLanes, columns.size));
    i += run;
  }
}

}  // namespace ggml_delegate
