#include "elements.h"

#include <algorithm>
#include <cstdint>

#include "work.h"

namespace ggml_delegate {
namespace {

constexpr int64_t kGrain = 64;  // elements; no two threads write to one cache line

// Walks through the elements from `first` on, one innermost row after the other.
class Walk {
 public:
  Walk(const ElementsParams& params, int64_t first) : params_(params), place_(params.offsets) {
    for (size_t i = 0; i < params.sizes.size(); ++i) index_.push_back(0);
    for (size_t i = params.sizes.size(); i-- > 0;) {
      step(i, first % params.sizes[i]);
      first /= params.sizes[i];
    }
  }
  int64_t place(size_t operand) const { return place_[operand]; }
  int64_t left_in_row() const { return params_.sizes[last()] - index_[last()]; }
  // Goes on by `count` <= left_in_row() elements.
  void advance(int64_t count) {
    step(last(), count);
    for (size_t i = last(); i > 0 && index_[i] == params_.sizes[i]; --i) {
      step(i, -index_[i]);
      step(i - 1, 1);
    }
  }

 private:
  size_t last() const { return params_.sizes.size() - 1; }
  void step(size_t dim, int64_t count) {
    index_[dim] += count;
    for (size_t i = 0; i < kMaxOperands; ++i) {
      if (!params_.strides[i].empty()) place_[i] += count * params_.strides[i][dim];
    }
  }

  const ElementsParams& params_;
  Sizes index_;
  std::array<int64_t, kMaxOperands> place_;
};

template <typename Run>
void each_run(const ElementsParams& params, int ith, int nth, Run run) {
  const Range range = part_of(element_count(params.sizes), ith, nth, kGrain);
  if (range.first == range.last) return;
  Walk walk(params, range.first);
  for (int64_t i = range.first; i < range.last;) {
    const int64_t count = std::min(walk.left_in_row(), range.last - i);
    run(walk, i, count);
    i += count;
    walk.advance(count);
  }
}

// The strides 0 and 1 are spelled out so that the compiler can vectorize the loops.
template <typename In, typename Function>
void run_two(const In* a, int64_t a_step, const In* b, int64_t b_step, int32_t* to, int64_t count,
             Function f) {
  if (a_step == 1 && b_step == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = f(a[i], b[i]);
  } else if (a_step == 1 && b_step == 0) {
    const In right = *b;
    for (int64_t i = 0; i < count; ++i) to[i] = f(a[i], right);
  } else if (a_step == 0 && b_step == 1) {
    const In left = *a;
    for (int64_t i = 0; i < count; ++i) to[i] = f(left, b[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = f(a[i * a_step], b[i * b_step]);
  }
}

template <typename In, typename Function>
void two(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ElementsParams*>(userdata);
  const auto* a = static_cast<const In*>(result->src[0]->data);
  const auto* b = static_cast<const In*>(result->src[1]->data);
  auto* to = static_cast<int32_t*>(result->data);
  const size_t last = params.sizes.size() - 1;
  each_run(params, ith, nth, [&](const Walk& walk, int64_t at, int64_t count) {
    run_two(a + walk.place(0), params.strides[0][last], b + walk.place(1), params.strides[1][last],
            to + at, count, Function{});
  });
}

struct Equal {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a == b ? 1 : 0;
  }
};
struct NotEqual {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a != b ? 1 : 0;
  }
};
struct Less {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a < b ? 1 : 0;
  }
};
struct LessEqual {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a <= b ? 1 : 0;
  }
};
struct Greater {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a > b ? 1 : 0;
  }
};
struct GreaterEqual {
  template <typename T>
  int32_t operator()(T a, T b) const {
    return a >= b ? 1 : 0;
  }
};

uint32_t bits(int32_t value) { return static_cast<uint32_t>(value); }

struct IntegerAdd {
  int64_t operator()(int64_t a, int64_t b) const { return a + b; }
};
struct IntegerSub {
  int64_t operator()(int64_t a, int64_t b) const { return a - b; }
};
struct IntegerMul {
  int64_t operator()(int64_t a, int64_t b) const { return a * b; }
};
struct IntegerMinimum {
  int32_t operator()(int32_t a, int32_t b) const { return std::min(a, b); }
};
struct IntegerMaximum {
  int32_t operator()(int32_t a, int32_t b) const { return std::max(a, b); }
};
struct IntegerAnd {
  int32_t operator()(int32_t a, int32_t b) const { return static_cast<int32_t>(bits(a) & bits(b)); }
};
struct IntegerOr {
  int32_t operator()(int32_t a, int32_t b) const { return static_cast<int32_t>(bits(a) | bits(b)); }
};
struct IntegerXor {
  int32_t operator()(int32_t a, int32_t b) const { return static_cast<int32_t>(bits(a) ^ bits(b)); }
};

// Adds and the like: the lower 32 bits of the result, which is noted where that is not all of it.
template <typename Function>
void arithmetic(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ElementsParams*>(userdata);
  const auto* a = static_cast<const int32_t*>(result->src[0]->data);
  const auto* b = static_cast<const int32_t*>(result->src[1]->data);
  auto* to = static_cast<int32_t*>(result->data);
  const size_t last = params.sizes.size() - 1;
  bool fits = true;
  each_run(params, ith, nth, [&](const Walk& walk, int64_t at, int64_t count) {
    run_two(a + walk.place(0), params.strides[0][last], b + walk.place(1), params.strides[1][last],
            to + at, count, [&fits](int32_t x, int32_t y) {
              const int64_t exact = Function{}(int64_t{x}, int64_t{y});
              const auto narrow = static_cast<int32_t>(static_cast<uint32_t>(exact));
              fits = fits && narrow == exact;
              return narrow;
            });
  });
  if (!fits && params.overflow != nullptr) {
    params.overflow->store(Fault::IntegerOverflow, std::memory_order_relaxed);
  }
}

template <typename Function>
ggml_custom_op_t compare(bool integers) {
  return integers ? two<int32_t, Function> : two<float, Function>;
}

}  // namespace

ggml_custom_op_t compare_kernel(ir::CompareKind kind, bool integers) {
  switch (kind) {
    case ir::CompareKind_Eq:
      return compare<Equal>(integers);
    case ir::CompareKind_Ne:
      return compare<NotEqual>(integers);
    case ir::CompareKind_Lt:
      return compare<Less>(integers);
    case ir::CompareKind_Le:
      return compare<LessEqual>(integers);
    case ir::CompareKind_Gt:
      return compare<Greater>(integers);
    case ir::CompareKind_Ge:
      return compare<GreaterEqual>(integers);
  }
  return nullptr;
}

ggml_custom_op_t integer_kernel(ir::IntegerKind kind) {
  switch (kind) {
    case ir::IntegerKind_Add:
      return arithmetic<IntegerAdd>;
    case ir::IntegerKind_Sub:
      return arithmetic<IntegerSub>;
    case ir::IntegerKind_Mul:
      return arithmetic<IntegerMul>;
    case ir::IntegerKind_Minimum:
      return two<int32_t, IntegerMinimum>;
    case ir::IntegerKind_Maximum:
      return two<int32_t, IntegerMaximum>;
    case ir::IntegerKind_And:
      return two<int32_t, IntegerAnd>;
    case ir::IntegerKind_Or:
      return two<int32_t, IntegerOr>;
    case ir::IntegerKind_Xor:
      return two<int32_t, IntegerXor>;
  }
  return nullptr;
}

void where_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const ElementsParams*>(userdata);
  const auto* condition = static_cast<const int32_t*>(result->src[0]->data);
  const auto* a = static_cast<const uint32_t*>(result->src[1]->data);
  const auto* b = static_cast<const uint32_t*>(result->src[2]->data);
  auto* to = static_cast<uint32_t*>(result->data);
  const size_t last = params.sizes.size() - 1;
  const int64_t c_step = params.strides[0][last];
  const int64_t a_step = params.strides[1][last];
  const int64_t b_step = params.strides[2][last];
  each_run(params, ith, nth, [&](const Walk& walk, int64_t at, int64_t count) {
    const int32_t* c = condition + walk.place(0);
    const uint32_t* x = a + walk.place(1);
    const uint32_t* y = b + walk.place(2);
    uint32_t* out = to + at;
    if (c_step == 1 && a_step == 1 && b_step == 1) {
      for (int64_t i = 0; i < count; ++i) out[i] = c[i] != 0 ? x[i] : y[i];
    } else if (c_step == 1 && a_step == 1 && b_step == 0) {
      const uint32_t other = *y;
      for (int64_t i = 0; i < count; ++i) out[i] = c[i] != 0 ? x[i] : other;
    } else if (c_step == 1 && a_step == 0 && b_step == 1) {
      const uint32_t other = *x;
      for (int64_t i = 0; i < count; ++i) out[i] = c[i] != 0 ? other : y[i];
    } else {
      for (int64_t i = 0; i < count; ++i) {
        out[i] = c[i * c_step] != 0 ? x[i * a_step] : y[i * b_step];
      }
    }
  });
}

}  // namespace ggml_delegate
