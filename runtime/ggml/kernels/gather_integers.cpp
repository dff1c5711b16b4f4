// This file is compiled without contraction: a product and the sum with a minimum are two
// roundings, as they are in PyTorch.
#include "gather_integers.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace ggml_delegate {
namespace {

float number_at(const StoredFloats& numbers, int64_t at) {
  switch (numbers.type) {
    case StoredFloats::Type::Float32:
      break;
    case StoredFloats::Type::Float16:
      return ggml_fp16_to_fp32(static_cast<const ggml_fp16_t*>(numbers.data)[at]);
    case StoredFloats::Type::BFloat16:
      return ggml_bf16_to_fp32(static_cast<const ggml_bf16_t*>(numbers.data)[at]);
    case StoredFloats::Type::Float28:
      return simd::Float28Numbers::one(static_cast<const uint8_t*>(numbers.data), at);
    case StoredFloats::Type::SuperBlocks:
      return simd::SuperBlockNumbers::one(static_cast<const uint8_t*>(numbers.data), at);
  }
  return static_cast<const float*>(numbers.data)[at];
}

// Where a row starts in panels that have `length` elements for each; these are kPanelWidth apart.
int64_t start_of(int64_t row, int64_t length) {
  return row / kPanelWidth * length * kPanelWidth + row % kPanelWidth;
}

// What an element of 4 bits is, given its byte. Unsigned: from 0 to 15.
template <bool Unsigned>
int half_of(int8_t byte, int64_t k) {
  constexpr int kSign = Unsigned ? 0 : 8;
  const int half = (static_cast<uint8_t>(byte) >> (k % 2 * 4)) & 0xF;
  return (half ^ kSign) - kSign;
}

// Elements first .. last of a row, whose integers start at `q`; each becomes function(element).
template <int Bits, bool Unsigned, typename Function>
void read_group(const int8_t* q, int64_t first, int64_t last, float* to, Function function) {
  const auto one = [&](int64_t k) {
    to[k] = function(static_cast<float>(half_of<Unsigned>(q[k / 2 * kPanelWidth], k)));
  };
  int64_t k = first;
  if constexpr (Bits == 8) {
    for (; k < last; ++k) to[k] = function(static_cast<float>(q[k * kPanelWidth]));
    return;
  }
  if (k % 2 != 0) one(k++);
  for (; k + 1 < last; k += 2) {
    one(k);
    one(k + 1);
  }
  if (k < last) one(k);
}

void expand_row(const GatherIntegersParams& params, const int8_t* table, const IntegersParams& how,
                int64_t row, float* to) {
  const int64_t depth = how.bits == 8 ? params.width : (params.width + 1) / 2;
  const int8_t* q = table + start_of(row, depth);
  const int64_t groups = (params.width + how.group - 1) / how.group;
  int64_t place = start_of(row, groups);
  for (int64_t first = 0; first < params.width; first += how.group, place += kPanelWidth) {
    const int64_t last = std::min(first + how.group, params.width);
    const float scale = number_at(how.scales, place);
    if (how.offsets == Offsets::Minimums) {
      const float minimum = number_at(how.minimums, place);
      const auto element = [&](float integer) { return integer * scale + minimum; };
      if (how.bits == 8) {
        read_group<8, true>(q, first, last, to, element);
      } else {
        read_group<4, true>(q, first, last, to, element);
      }
      continue;
    }
    const float zero = how.offsets == Offsets::ZeroPoints ? how.zeros[place] : 0.0F;
    const auto element = [&](float integer) { return (integer - zero) * scale; };
    if (how.bits == 8) {
      read_group<8, false>(q, first, last, to, element);
    } else {
      read_group<4, false>(q, first, last, to, element);
    }
  }
}

}  // namespace

void gather_integers_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const GatherIntegersParams*>(userdata);
  const auto* indices = static_cast<const int32_t*>(result->src[0]->data);
  const auto* table = static_cast<const int8_t*>(result->src[1]->data);
  const IntegersParams how = params.integers.read(result->src + 2);
  const int64_t count = ggml_nelements(result->src[0]);
  for (int64_t i = count * ith / nth; i < count * (ith + 1) / nth; ++i) {
    int64_t row = indices[i];
    if (row < 0 && params.wrap) row += params.rows;
    float* to = static_cast<float*>(result->data) + i * params.width;
    if (row < 0 || row >= params.rows) {
      params.fault->store(Fault::IndexOutOfRange, std::memory_order_relaxed);
      std::memset(to, 0, static_cast<size_t>(params.width) * sizeof(float));
    } else {
      expand_row(params, table, how, row, to);
    }
  }
}

}  // namespace ggml_delegate
