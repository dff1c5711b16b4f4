#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "gemm.h"
#include "half.h"
#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

// Scores of a block of queries, in elements: they stay in the second-level cache.
constexpr int64_t kScores = 48 * 1024;
constexpr int64_t kMaxBlock = 96;
constexpr int64_t kMinBlock = 12;

int64_t panels(const AttentionParams& p) { return (p.keys + kPanelWidth - 1) / kPanelWidth; }

float* scratch(int64_t count) {
  thread_local std::vector<float> scores;
  if (scores.size() < static_cast<size_t>(count)) scores.resize(static_cast<size_t>(count));
  return scores.data();
}

int64_t place(const HeadView& view, int64_t batch, int64_t head, int64_t row) {
  return view.offset + batch * view.batch + head * view.head + row * view.row;
}

const float* at(const ggml_tensor* tensor, const HeadView& view, int64_t batch, int64_t head,
                int64_t row) {
  return static_cast<const float*>(tensor->data) + place(view, batch, head, row);
}

// Rows of keys or values, as they are stored, `stride` elements apart.
template <typename Numbers>
struct Rows {
  using Type = Numbers;
  const typename Numbers::Stored* data;
  int64_t stride;
  const typename Numbers::Stored* row(int64_t i) const { return data + i * stride; }
};

// function(Rows) of the rows of one head, by the type that they are stored in.
template <typename Function>
void with_rows(const ggml_tensor* tensor, const HeadView& view, int64_t batch, int64_t head,
               Function function) {
  const auto rows = [&](auto numbers) {
    using Numbers = decltype(numbers);
    const auto* data = static_cast<const typename Numbers::Stored*>(tensor->data);
    function(Rows<Numbers>{data + place(view, batch, head, 0), view.row});
  };
  if (tensor->type == GGML_TYPE_F16) {
    rows(simd::Float16Numbers{});
  } else if (tensor->type == GGML_TYPE_BF16) {
    rows(simd::BFloat16Numbers{});
  } else {
    rows(simd::Float32Numbers{});
  }
}

// Up to kLanes numbers, the others 0.
template <typename Numbers>
Vec load_first(const typename Numbers::Stored* from, int64_t count) {
  if constexpr (std::is_same_v<Numbers, simd::Float32Numbers>) {
    return simd::load_part(from, count);
  } else {
    typename Numbers::Stored part[kLanes] = {};
    std::copy(from, from + count, part);
    return Numbers::load(part);
  }
}

// The numbers as floats.
template <typename Numbers>
void widen(const typename Numbers::Stored* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) simd::store(to + i, Numbers::load(from + i));
  if (i < count) simd::store_part(to + i, load_first<Numbers>(from + i, count - i), count - i);
}

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The largest of all lanes; a NaN wins.
float largest_lane(Vec most) {
  float result = kNever;
  for (int i = 0; i < kLanes; ++i) {
    result = most[i] > result || most[i] != most[i] ? most[i] : result;
  }
  return result;
}

// x[i] = f(x, i) over a row, for vectors at i; returns the largest result, of which a NaN is one.
template <typename Function>
float update(float* x, int64_t count, Function f) {
  Vec most = simd::splat(kNever);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec v = f(simd::load(x + i), i, int64_t{kLanes});
    simd::store(x + i, v);
    most = simd::maximum(most, v);
  }
  if (i < count) {
    const Vec v = f(simd::load_part(x + i, count - i), i, count - i);
    simd::store_part(x + i, v, count - i);
    most = simd::maximum(most, simd::select(simd::first_lanes(count - i), v, most));
  }
  return largest_lane(most);
}

Vec load_upto(const float* from, int64_t count) {
  return count == kLanes ? simd::load(from) : simd::load_part(from, count);
}

// x = scale * x + mask over a row of scores; returns the largest.
float scale_and_mask(float* x, int64_t count, float scale, const float* mask) {
  return update(x, count, [=](Vec v, int64_t i, int64_t part) {
    return v * scale + load_upto(mask + i, part);
  });
}

float scale_and_select(float* x, int64_t count, float scale, const int32_t* keep) {
  return update(x, count, [=](Vec v, int64_t i, int64_t part) {
    const Vec bits = load_upto(reinterpret_cast<const float*>(keep + i), part);
    return simd::select(simd::bits(bits) != 0, v * scale, simd::splat(kNever));
  });
}

float scale_only(float* x, int64_t count, float scale) {
  return update(x, count, [=](Vec v, int64_t, int64_t) { return v * scale; });
}

// x = exp(x - shift); returns the sum.
float exponentials(float* x, int64_t count, float shift) {
  Vec sums{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec e = simd::exp_nonpositive(simd::load(x + i) - shift);
    simd::store(x + i, e);
    sums += e;
  }
  if (i < count) {
    const Vec e = simd::exp_nonpositive(simd::load_part(x + i, count - i) - shift);
    simd::store_part(x + i, e, count - i);
    sums += simd::select(simd::first_lanes(count - i), e, Vec{});
  }
  return simd::sum_lanes(sums);
}

// Keys first .. last - 1.
struct Keys {
  int64_t first = 0;
  int64_t last = 0;
  bool empty() const { return last <= first; }
  int64_t count() const { return last - first; }
};

// The keys of both, and those between them.
Keys joined(const Keys& a, const Keys& b) {
  if (a.empty()) return b;
  return b.empty() ? a : Keys{std::min(a.first, b.first), std::max(a.last, b.last)};
}

// Bit patterns of a mask's elements, from the first to the last. Those of negative floats grow with
// their size, and those of NaNs come behind that of minus infinity.
struct Patterns {
  uint32_t first;
  uint32_t last;
};

constexpr Patterns kFalse{0, 0};
constexpr Patterns kInfinite{0xff800000, 0xff800000};
// -1e38 or less, such as the smallest number of float32 or bfloat16. No score makes up for that, so
// that such a key has the weight 0 beside any with another mask.
constexpr Patterns kLowest{0xfe967699, 0xff800000};

// Whether all of kScanned elements are `hidden`.
constexpr int64_t kScanned = 64;
bool all_hidden(const uint32_t* mask, Patterns hidden) {
  simd::IntVec other{};
  for (int64_t i = 0; i < kScanned; i += kLanes) {
    simd::UintVec part;
    std::memcpy(&part, mask + i, sizeof(part));
    other |= (part - hidden.first) > (hidden.last - hidden.first);
  }
  int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) any |= other[i];
  return any == 0;
}

bool is_hidden(uint32_t bits, Patterns hidden) {
  return bits - hidden.first <= hidden.last - hidden.first;
}

// Of a row of a mask, the elements from the first to the last that are not `hidden`.
Keys kept_in(const uint32_t* mask, int64_t count, Patterns hidden) {
  Keys kept{0, count};
  while (kept.count() >= kScanned && all_hidden(mask + kept.last - kScanned, hidden)) {
    kept.last -= kScanned;
  }
  while (!kept.empty() && is_hidden(mask[kept.last - 1], hidden)) --kept.last;
  while (kept.count() >= kScanned && all_hidden(mask + kept.first, hidden)) kept.first += kScanned;
  while (!kept.empty() && is_hidden(mask[kept.first], hidden)) ++kept.first;
  return kept;
}

// The keys that query `row` may see: the mask, which may be null, may still hide some between the
// first and the last one. A NaN in it hides nothing.
Keys visible_keys(const AttentionParams& p, const ggml_tensor* mask, int64_t batch, int64_t head,
                  int64_t row) {
  const int64_t count = p.causal ? std::min(row + 1, p.keys) : p.keys;
  if (mask == nullptr) return {0, count};
  const auto* bits = reinterpret_cast<const uint32_t*>(at(mask, p.mask, batch, head, row));
  if (mask->type == GGML_TYPE_I32) return kept_in(bits, count, kFalse);
  const Keys seen = kept_in(bits, count, kLowest);
  // Where all are that low, they count alike, but for those with minus infinity.
  return seen.empty() ? kept_in(bits, count, kInfinite) : seen;
}

// Those that any of the queries first .. last - 1 may see.
Keys visible_keys(const AttentionParams& p, const ggml_tensor* mask, int64_t batch, int64_t head,
                  int64_t first, int64_t last) {
  // The last one sees as much as any. Not where the mask hides all that an earlier one may look
  // back at: that one sees what the mask makes low.
  const bool alike = mask == nullptr || (p.mask.row == 0 && !p.causal);
  Keys seen;
  for (int64_t row = alike ? last - 1 : first; row < last; ++row) {
    seen = joined(seen, visible_keys(p, mask, batch, head, row));
  }
  return seen;
}

// Those that any query of the heads of a group may see.
Keys visible_to_group(const AttentionParams& p, const ggml_tensor* mask, int64_t batch,
                      int64_t group) {
  const int64_t heads = p.heads / p.groups;
  const bool alike = mask == nullptr || p.mask.head == 0;
  Keys seen;
  for (int64_t i = 0; i < (alike ? 1 : heads); ++i) {
    seen = joined(seen, visible_keys(p, mask, batch, group * heads + i, 0, p.queries));
  }
  return seen;
}

// Whole panels of keys, which start where vectors do.
Keys widened(const Keys& keys) { return {keys.first / kPanelWidth * kPanelWidth, keys.last}; }

// Where one head of one batch element is, and what its rows have in common.
struct Head {
  const AttentionParams& p;
  const ggml_tensor* result;
  int64_t batch;
  int64_t head;

  int64_t group() const { return head / (p.heads / p.groups); }
  const ggml_tensor* mask() const { return result->src[3]; }
  const float* q(int64_t row) const { return at(result->src[0], p.q, batch, head, row); }
  float* out(int64_t row) const {
    return const_cast<float*>(at(result, p.result, batch, head, row));
  }

  // Turns the raw scores of a query with `keys` into weights that still have to be divided by the
  // returned sum (0 when it sees no key); those of keys that it may not see become 0.
  float weigh(float* scores, int64_t row, const Keys& keys) const {
    const int64_t last = p.causal ? std::min(row + 1, keys.last) : keys.last;
    const int64_t seen = std::max<int64_t>(last - keys.first, 0);
    float shift = kNever;
    if (mask() == nullptr) {
      shift = scale_only(scores, seen, p.scale);
    } else {
      const float* row_of_mask = at(mask(), p.mask, batch, head, row) + keys.first;
      shift = mask()->type == GGML_TYPE_I32
                  ? scale_and_select(scores, seen, p.scale,
                                     reinterpret_cast<const int32_t*>(row_of_mask))
                  : scale_and_mask(scores, seen, p.scale, row_of_mask);
    }
    std::fill(scores + seen, scores + keys.count(), 0.0F);
    if (shift == kNever) {
      std::fill(scores, scores + seen, 0.0F);
      return 0;
    }
    return exponentials(scores, seen, shift);
  }
};

void scale_row(float* x, int64_t count, float sum) {
  const float factor = sum == 0 ? 0.0F : 1.0F / sum;
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

// The values of `keys` in floats, rows `stride` apart: where they are, or from a half type in
// `copy`.
const float* values_of(const Head& head, const Keys& keys, float* copy, int64_t* stride) {
  const AttentionParams& p = head.p;
  const ggml_tensor* v = head.result->src[2];
  if (v->type == GGML_TYPE_F32) {
    *stride = p.v.row;
    return at(v, p.v, head.batch, head.group(), keys.first);
  }
  *stride = p.width;
  with_rows(v, p.v, head.batch, head.group(), [&](auto stored) {
    using Numbers = typename decltype(stored)::Type;
    for (int64_t i = 0; i < keys.count(); ++i) {
      widen<Numbers>(stored.row(keys.first + i), p.width, copy + i * p.width);
    }
  });
  return copy;
}

// Queries first .. last of a head, as two matrix products with the keys that any of them sees.
void attend_block(const Head& head, const float* keys, int64_t first, int64_t last) {
  const AttentionParams& p = head.p;
  const int64_t rows = last - first;
  const Keys seen = widened(visible_keys(p, head.mask(), head.batch, head.head, first, last));
  if (seen.empty()) {
    for (int64_t row = first; row < last; ++row) {
      std::fill(head.out(row), head.out(row) + p.width, 0.0F);
    }
    return;
  }
  const int64_t stride = panels(p) * kPanelWidth;
  const bool in_floats = head.result->src[2]->type == GGML_TYPE_F32;
  const int64_t copied = in_floats ? 0 : seen.count() * p.width;
  float* scores = scratch(kMaxBlock + rows * stride + copied);
  float* sums = scores + rows * stride;
  Gemm product;
  product.m = rows;
  product.n = seen.count();
  product.k = p.depth;
  product.left.data = head.q(first);
  product.left.stride = p.q.row;
  product.right.data = keys + seen.first * p.depth;
  product.result = scores;
  product.result_stride = stride;
  gemm(product, 0, 1);
  for (int64_t i = 0; i < rows; ++i) sums[i] = head.weigh(scores + i * stride, first + i, seen);
  product.n = p.width;
  product.k = seen.count();
  product.left.data = scores;
  product.left.stride = stride;
  product.right.columns = Columns::RowMajor;
  product.right.data = values_of(head, seen, sums + kMaxBlock, &product.right.stride);
  product.result = head.out(first);
  product.result_stride = p.result.row;
  gemm(product, 0, 1);
  for (int64_t i = 0; i < rows; ++i) scale_row(head.out(first + i), p.width, sums[i]);
}

template <typename Numbers>
float dot(const float* a, const typename Numbers::Stored* b, int64_t count) {
  Vec sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    for (int j = 0; j < 2; ++j) {
      sums[j] += simd::load(a + i + j * kLanes) * Numbers::load(b + i + j * kLanes);
    }
  }
  for (; i + kLanes <= count; i += kLanes) sums[0] += simd::load(a + i) * Numbers::load(b + i);
  if (i < count) {
    sums[1] += simd::load_part(a + i, count - i) * load_first<Numbers>(b + i, count - i);
  }
  return simd::sum_lanes(sums[0] + sums[1]);
}

// Columns of the result, from `column` on: the sum of the values' rows by their weights.
template <int Vecs, typename Numbers>
void weighted_rows(const float* weights, const Rows<Numbers>& v, int64_t column, int64_t rows,
                   float* to) {
  Vec sums[Vecs] = {};
  for (int64_t row = 0; row < rows; ++row) {
    for (int i = 0; i < Vecs; ++i) {
      sums[i] += weights[row] * Numbers::load(v.row(row) + column + i * kLanes);
    }
  }
  for (int i = 0; i < Vecs; ++i) simd::store(to + i * kLanes, sums[i]);
}

template <typename Numbers>
void weighted_tail(const float* weights, const Rows<Numbers>& v, int64_t column, int64_t rows,
                   float* to, int64_t count) {
  Vec sum{};
  for (int64_t row = 0; row < rows; ++row) {
    sum += weights[row] * load_first<Numbers>(v.row(row) + column, count);
  }
  simd::store_part(to, sum, count);
}

// All columns of one row of the result.
template <typename Numbers>
void weighted_sum(const float* weights, const Rows<Numbers>& v, int64_t rows, int64_t width,
                  float* to) {
  constexpr int kVecs = 8;
  int64_t column = 0;
  for (; column + kVecs * kLanes <= width; column += kVecs * kLanes) {
    weighted_rows<kVecs>(weights, v, column, rows, to + column);
  }
  for (; column + kLanes <= width; column += kLanes) {
    weighted_rows<1>(weights, v, column, rows, to + column);
  }
  if (column < width) weighted_tail(weights, v, column, rows, to + column, width - column);
}

// A key as a column of its panel.
template <typename Numbers>
void pack_key(const typename Numbers::Stored* from, int64_t depth, float* to) {
  if constexpr (std::is_same_v<Numbers, simd::Float32Numbers>) {
    for (int64_t d = 0; d < depth; ++d) to[d * kPanelWidth] = from[d];
  } else {
    for (int64_t d = 0; d < depth; d += kLanes) {
      const int64_t count = std::min<int64_t>(depth - d, kLanes);
      const Vec v =
          count == kLanes ? Numbers::load(from + d) : load_first<Numbers>(from + d, count);
      for (int64_t i = 0; i < count; ++i) to[(d + i) * kPanelWidth] = v[i];
    }
  }
}

// One query, with keys and values read once, where they are.
void attend_row(const Head& head, int64_t row) {
  const AttentionParams& p = head.p;
  const Keys keys = widened(visible_keys(p, head.mask(), head.batch, head.head, row));
  const int64_t seen = std::max<int64_t>(keys.count(), 0);
  float* scores = scratch(kMaxBlock + seen);
  with_rows(head.result->src[1], p.k, head.batch, head.group(), [&](auto stored) {
    using Numbers = typename decltype(stored)::Type;
    for (int64_t i = 0; i < seen; ++i) {
      scores[i] = dot<Numbers>(head.q(row), stored.row(keys.first + i), p.depth);
    }
  });
  const float sum = head.weigh(scores, row, keys);
  float* to = head.out(row);
  with_rows(head.result->src[2], p.v, head.batch, head.group(), [&](auto stored) {
    stored.data = stored.row(keys.first);
    weighted_sum(scores, stored, seen, p.width, to);
  });
  scale_row(to, p.width, sum);
}

}  // namespace

int64_t packed_keys_count(const AttentionParams& params) {
  return params.batch * params.groups * panels(params) * params.depth * kPanelWidth;
}

void pack_keys_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& p = *static_cast<const AttentionParams*>(userdata);
  const Range range = part_of(p.batch * p.groups * panels(p), ith, nth);
  Keys seen;
  int64_t seen_by = -1;  // the head
  for (int64_t i = range.first; i < range.last; ++i) {
    const int64_t head = i / panels(p);
    const int64_t first = i % panels(p) * kPanelWidth;
    const bool known = seen_by >= 0 && p.mask.head == 0 && p.mask.batch == 0;
    if (head != seen_by && !known) {
      seen = visible_to_group(p, result->src[1], head / p.groups, head % p.groups);
    }
    seen_by = head;
    if (first + kPanelWidth <= seen.first || first >= seen.last) continue;
    const int64_t count = std::min(p.keys - first, kPanelWidth);
    float* to = static_cast<float*>(result->data) + i * p.depth * kPanelWidth;
    if (count < kPanelWidth) std::fill(to, to + p.depth * kPanelWidth, 0.0F);
    with_rows(result->src[0], p.k, head / p.groups, head % p.groups, [&](auto stored) {
      using Numbers = typename decltype(stored)::Type;
      for (int64_t key = 0; key < count; ++key) {
        pack_key<Numbers>(stored.row(first + key), p.depth, to + key);
      }
    });
  }
}

void attention_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& p = *static_cast<const AttentionParams*>(userdata);
  if (p.queries <= kFewQueries) {
    const Range range = part_of(p.batch * p.heads, ith, nth);
    for (int64_t i = range.first; i < range.last; ++i) {
      const Head head{p, result, i / p.heads, i % p.heads};
      for (int64_t row = 0; row < p.queries; ++row) attend_row(head, row);
    }
    return;
  }
  const int64_t stride = panels(p) * kPanelWidth;
  const int64_t most = std::clamp(kScores / stride, kMinBlock, kMaxBlock);
  const int64_t blocks = (p.queries + most - 1) / most;
  const auto* keys = static_cast<const float*>(result->src[1]->data);
  // Neighbouring blocks go to different threads: causal ones cost nearly the same.
  for (int64_t i = ith; i < p.batch * p.heads * blocks; i += nth) {
    const int64_t block = i % blocks;
    const Head head{p, result, i / blocks / p.heads, i / blocks % p.heads};
    attend_block(head, keys + (head.batch * p.groups + head.group()) * stride * p.depth,
                 p.queries * block / blocks, p.queries * (block + 1) / blocks);
  }
}

}  // namespace ggml_delegate
