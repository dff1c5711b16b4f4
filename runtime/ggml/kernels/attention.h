// Scaled dot-product attention in float32.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace ggml_delegate {

// Where [batch, heads, rows, columns] lie, in elements from the tensor's data; columns are 1 apart.
struct HeadView {
  int64_t offset = 0;
  int64_t batch = 0;
  int64_t head = 0;
  int64_t row = 0;
};

struct AttentionParams {
  int64_t batch = 1;
  int64_t heads = 1;
  int64_t groups = 1;  // of heads that share keys and values
  int64_t queries = 1;
  int64_t keys = 1;
  int64_t depth = 1;  // of queries and keys
  int64_t width = 1;  // of values and results
  float scale = 1;
  bool causal = false;
  HeadView q;
  HeadView k;
  HeadView v;
  HeadView mask;
  HeadView result;
};

// So many queries or fewer are multiplied with the keys where they lie.
inline constexpr int64_t kFewQueries = 4;

// Elements of the keys in panels: [batch, groups, ceil(keys / 16), depth, 16].
int64_t packed_keys_count(const AttentionParams& params);

// Keys and values are F32, or of a half type as their state has it.

// A ggml custom op: src are k and the mask, if any; the result is packed_keys_count() floats.
// Panels of keys that the mask hides from all queries are left as they were. `userdata` of both ops
// is an AttentionParams.
void pack_keys_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

// A ggml custom op: src are q, k (packed if queries > kFewQueries), v and the mask, if any: F32 to
// add or I32 that is 0 where a key does not count. A query that sees no key gets 0. Keys and values
// in front of the first key, and behind the last, that the mask leaves to any query of a block are
// not read.
void attention_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
