#include "fold.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "work.h"

namespace ggml_delegate {
namespace {

// Columns that are reduced side by side, so that memory is read in sequence.
constexpr int64_t kColumns = 64;

bool is_nan(float value) { return std::isnan(value); }
bool is_nan(int32_t) { return false; }

struct Max {
  template <typename T>
  static T join(T best, T value) {
    return value > best || (is_nan(value) && !is_nan(best)) ? value : best;
  }
};
struct Min {
  template <typename T>
  static T join(T best, T value) {
    return value < best || (is_nan(value) && !is_nan(best)) ? value : best;
  }
};
struct Sum {
  static int32_t join(int32_t sum, int32_t value) {
    return static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(value));
  }
};
struct Prod {
  static float join(float product, float value) { return product * value; }
  static int32_t join(int32_t product, int32_t value) {
    return static_cast<int32_t>(static_cast<uint32_t>(product) * static_cast<uint32_t>(value));
  }
};
struct Any {
  static int32_t join(int32_t any, int32_t value) { return (any | value) != 0 ? 1 : 0; }
};
struct All {
  static int32_t join(int32_t all, int32_t value) { return all != 0 && value != 0 ? 1 : 0; }
};

// Calls run(first element, columns, first result) for blocks of neighbouring columns.
template <typename Run>
void each_block(const FoldParams& params, int ith, int nth, Run run) {
  const int64_t blocks = (params.inner + kColumns - 1) / kColumns;
  const Range range = part_of(params.outer * blocks, ith, nth);
  for (int64_t block = range.first; block < range.last; ++block) {
    const int64_t outer = block / blocks;
    const int64_t column = block % blocks * kColumns;
    run(outer * params.count * params.inner + column, std::min(params.inner - column, kColumns),
        outer * params.inner + column);
  }
}

template <typename T, typename Join>
void fold(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const FoldParams*>(userdata);
  const auto* x = static_cast<const T*>(result->src[0]->data);
  auto* y = static_cast<T*>(result->data);
  each_block(params, ith, nth, [&](int64_t from, int64_t columns, int64_t to) {
    T joined[kColumns];
    std::copy(x + from, x + from + columns, joined);
    for (int64_t i = 1; i < params.count; ++i) {
      const T* row = x + from + i * params.inner;
      for (int64_t j = 0; j < columns; ++j) joined[j] = Join::join(joined[j], row[j]);
    }
    std::copy(joined, joined + columns, y + to);
  });
}

// Whether there are any, or only, elements other than 0; of one element too.
template <typename Join>
void fold_mask(ggml_tensor* result, int ith, int nth, void* userdata) {
  fold<int32_t, Join>(result, ith, nth, userdata);
  const auto& params = *static_cast<const FoldParams*>(userdata);
  auto* y = static_cast<int32_t*>(result->data);
  each_block(params, ith, nth, [&](int64_t, int64_t columns, int64_t to) {
    for (int64_t j = to; j < to + columns; ++j) y[j] = y[j] != 0 ? 1 : 0;
  });
}

template <typename T, typename Join>
void place_of(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const FoldParams*>(userdata);
  const auto* x = static_cast<const T*>(result->src[0]->data);
  auto* y = static_cast<int32_t*>(result->data);
  each_block(params, ith, nth, [&](int64_t from, int64_t columns, int64_t to) {
    T best[kColumns];
    std::copy(x + from, x + from + columns, best);
    std::fill(y + to, y + to + columns, 0);
    for (int64_t i = 1; i < params.count; ++i) {
      const T* row = x + from + i * params.inner;
      for (int64_t j = 0; j < columns; ++j) {
        const T joined = Join::join(best[j], row[j]);
        const bool other = joined != best[j] && !(is_nan(joined) && is_nan(best[j]));
        best[j] = joined;
        if (other) y[to + j] = static_cast<int32_t>(i);
      }
    }
  });
}

template <typename T, typename Total>
void cumsum(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const FoldParams*>(userdata);
  const auto* x = static_cast<const T*>(result->src[0]->data);
  auto* y = static_cast<T*>(result->data);
  each_block(params, ith, nth, [&](int64_t from, int64_t columns, int64_t) {
    Total totals[kColumns] = {};
    for (int64_t i = 0; i < params.count; ++i) {
      const int64_t row = from + i * params.inner;
      for (int64_t j = 0; j < columns; ++j) {
        totals[j] += static_cast<Total>(x[row + j]);
        y[row + j] = static_cast<T>(totals[j]);
      }
    }
  });
}

}  // namespace

ggml_custom_op_t fold_kernel(ir::ReduceKind kind, bool integers) {
  switch (kind) {
    case ir::ReduceKind_Max:
      return integers ? fold<int32_t, Max> : fold<float, Max>;
    case ir::ReduceKind_Min:
      return integers ? fold<int32_t, Min> : fold<float, Min>;
    case ir::ReduceKind_Prod:
      return integers ? fold<int32_t, Prod> : fold<float, Prod>;
    case ir::ReduceKind_Sum:
      return integers ? fold<int32_t, Sum> : nullptr;
    case ir::ReduceKind_Any:
      return integers ? fold_mask<Any> : nullptr;
    case ir::ReduceKind_All:
      return integers ? fold_mask<All> : nullptr;
    case ir::ReduceKind_ArgMax:
      return integers ? place_of<int32_t, Max> : place_of<float, Max>;
    case ir::ReduceKind_ArgMin:
      return integers ? place_of<int32_t, Min> : place_of<float, Min>;
    case ir::ReduceKind_Mean:
      return nullptr;
  }
  return nullptr;
}

ggml_custom_op_t cumsum_kernel(bool integers) {
  return integers ? cumsum<int32_t, uint32_t> : cumsum<float, double>;
}

}  // namespace ggml_delegate
