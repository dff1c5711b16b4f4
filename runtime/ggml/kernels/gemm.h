// Matrix products of float32 rows with weights that are packed into panels of columns.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "clamp.h"
#include "ir_generated.h"
#include "precision.h"

namespace ggml_delegate {

// Columns per panel of a packed weight; the schema's layout [ceil(n / 16), k, 16].
inline constexpr int64_t kPanelWidth = static_cast<int64_t>(ir::Limit_PanelWidth);

// How the right factor [k, n] lies in memory.
enum class Columns {
  Packed,     // [ceil(n / 16), k, 16], zero beyond n
  RowMajor,   // [k, n], rows `stride` apart
  Transposed  // [n, k], rows `stride` apart
};

// What integers stand for: q * scale, (q - zero point) * scale, or q * scale + minimum.
enum class Offsets : uint8_t { None, ZeroPoints, Minimums };

// Bytes of 16 floats of 28 bits; see the schema's Integers.
inline constexpr int64_t kFloat28Bytes = 56;

// Super-blocks of integers times a float16, by 16 rows; see the schema's Integers.
inline constexpr int64_t kSuperBlockGroups = 8;
inline constexpr int64_t kSuperBlockIntegers = kSuperBlockGroups * kPanelWidth;
inline constexpr int64_t kSuperBlockBytes = kSuperBlockIntegers + kPanelWidth * 2;

// Floats in panels as they are stored; half.h reads them.
struct StoredFloats {
  enum class Type : uint8_t { Float32, Float16, BFloat16, Float28, SuperBlocks };

  const void* data = nullptr;
  Type type = Type::Float32;

  StoredFloats() = default;
  explicit StoredFloats(const ggml_tensor* tensor) : data(tensor->data) {
    if (tensor->type == GGML_TYPE_F16) type = Type::Float16;
    if (tensor->type == GGML_TYPE_BF16) type = Type::BFloat16;
    if (tensor->type == GGML_TYPE_I8) {
      type = tensor->ne[0] == kSuperBlockBytes ? Type::SuperBlocks : Type::Float28;
    }
  }

  // That a row of a panel takes; of super-blocks, on average.
  int64_t row_bytes() const {
    switch (type) {
      case Type::Float32:
        return kPanelWidth * 4;
      case Type::Float28:
        return kFloat28Bytes;
      case Type::SuperBlocks:
        return kSuperBlockBytes / kSuperBlockGroups;
      default:
        return kPanelWidth * 2;
    }
  }
};

// Integers of a packed factor and what they stand for; see the schema.
struct IntegersParams {
  int bits = 0;  // 8 or 4; 0: the factor is of floats
  int64_t group = 0;
  Offsets offsets = Offsets::None;
  StoredFloats scales;
  const int8_t* zeros = nullptr;  // of Offsets::ZeroPoints
  StoredFloats minimums;          // of Offsets::Minimums
};

// A weight of integers as a custom op's sources have it: it is followed, after the bias, by its
// scales, and its zero points or minimums.
struct IntegersLayout {
  int bits = 0;  // as in IntegersParams
  int64_t group = 0;
  Offsets offsets = Offsets::None;

  int source_count() const { return bits == 0 ? 0 : (offsets == Offsets::None ? 1 : 2); }

  // `next`: the source that follows the bias.
  IntegersParams read(ggml_tensor* const* next) const {
    IntegersParams params;
    params.bits = bits;
    params.group = group;
    params.offsets = offsets;
    if (bits != 0) params.scales = StoredFloats(next[0]);
    if (offsets == Offsets::ZeroPoints) params.zeros = static_cast<const int8_t*>(next[1]->data);
    if (offsets == Offsets::Minimums) params.minimums = StoredFloats(next[1]);
    return params;
  }
};

struct RightFactor {
  Columns columns = Columns::Packed;
  ggml_type type = GGML_TYPE_F32;  // F16, BF16 and I8 only when packed
  const void* data = nullptr;
  int64_t stride = 0;  // in elements; unused when packed
  IntegersParams integers;
};

// Rows of the left factor [m, k].
struct LeftFactor {
  // Elements k0 .. k0 + count of rows row0 .. row0 + rows, one after another, to `block`.
  using Gather = void (*)(const void* context, int64_t row0, int64_t rows, int64_t k0,
                          int64_t count, float* block);
  const float* data = nullptr;  // rows `stride` elements apart, or null
  int64_t stride = 0;
  Gather gather = nullptr;  // where data is null
  const void* context = nullptr;
};

// result = clamp(left @ right + bias)
struct Gemm {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  LeftFactor left;
  RightFactor right;
  float* result = nullptr;  // [m, n], rows `result_stride` elements apart
  int64_t result_stride = 0;
  const float* bias = nullptr;  // [n] or null
  ClampParams clamp;
};

// Thread `ith` of `nth` computes its share of the result. m, n and k are at least 1.
void gemm(const Gemm& op, int ith, int nth);

}  // namespace ggml_delegate
