#include "binary.h"

#include "half.h"
#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr int64_t kGrain = 64;  // elements; no two threads write to one cache line

struct Add {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return a + alpha * b; }
};
struct Multiply {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return a * b; }
};
struct Divide {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return a / b; }
};
struct Minimum {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return simd::minimum(a, b); }
};
struct Maximum {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return simd::maximum(a, b); }
};
struct Prelu {
  float alpha;
  Vec operator()(Vec a, Vec b) const { return simd::select(a > 0.0F, a, a * b); }
};

// An operand along the innermost dimension: stride 1, 0, or any other.
template <int kStride>
struct Operand;
template <>
struct Operand<1> {
  const float* data;
  Operand(const float* from, int64_t) : data(from) {}
  Vec load(int64_t i) const { return simd::load(data + i); }
  Vec load_part(int64_t i, int64_t count) const { return simd::load_part(data + i, count); }
};
template <>
struct Operand<0> {
  Vec value;
  Operand(const float* from, int64_t) : value(simd::splat(*from)) {}
  Vec load(int64_t) const { return value; }
  Vec load_part(int64_t, int64_t) const { return value; }
};
template <>
struct Operand<-1> {
  const float* data;
  int64_t stride;
  Operand(const float* from, int64_t step) : data(from), stride(step) {}
  Vec load(int64_t i) const { return load_part(i, kLanes); }
  Vec load_part(int64_t i, int64_t count) const {
    Vec v{};
    for (int64_t lane = 0; lane < count; ++lane) v[lane] = data[(i + lane) * stride];
    return v;
  }
};

struct Run {
  const float* a;
  const float* b;
  float* to;
  int64_t count;
  int64_t a_stride;
  int64_t b_stride;
};

template <int kA, int kB, typename Function>
void run_with(const Run& run, Function f) {
  const Operand<kA> a(run.a, run.a_stride);
  const Operand<kB> b(run.b, run.b_stride);
  const int64_t count = run.count;
  float* to = run.to;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) simd::store(to + i, f(a.load(i), b.load(i)));
  if (i < count) {
    const int64_t rest = count - i;
    simd::store_part(to + i, f(a.load_part(i, rest), b.load_part(i, rest)), rest);
  }
}

template <typename Function>
using RunFunction = void (*)(const Run&, Function);

template <typename Function>
RunFunction<Function> choose_run(int64_t a_stride, int64_t b_stride) {
  if (a_stride == 1 && b_stride == 1) return run_with<1, 1, Function>;
  if (a_stride == 1 && b_stride == 0) return run_with<1, 0, Function>;
  if (a_stride == 0 && b_stride == 1) return run_with<0, 1, Function>;
  if (a_stride == 0 && b_stride == 0) return run_with<0, 0, Function>;
  return run_with<-1, -1, Function>;
}

// Walks through the elements from `first` on, one innermost row after the other.
struct Walk {
  const BinaryParams& params;
  Sizes index;
  int64_t a = 0;  // offsets of the current element
  int64_t b = 0;

  Walk(const BinaryParams& p, int64_t first) : params(p) {
    for (size_t i = 0; i < p.sizes.size(); ++i) index.push_back(0);
    for (size_t i = p.sizes.size(); i-- > 0;) {
      index[i] = first % p.sizes[i];
      first /= p.sizes[i];
      a += index[i] * p.a_strides[i];
      b += index[i] * p.b_strides[i];
    }
  }
  int64_t left_in_row() const {
    return params.sizes[params.sizes.size() - 1] - index[params.sizes.size() - 1];
  }
  // Goes on by `count` <= left_in_row() elements.
  void advance(int64_t count) {
    step(params.sizes.size() - 1, count);
    for (size_t i = params.sizes.size(); --i > 0 && index[i] == params.sizes[i];) {
      step(i, -index[i]);
      step(i - 1, 1);
    }
  }

 private:
  void step(size_t dim, int64_t count) {
    index[dim] += count;
    a += count * params.a_strides[dim];
    b += count * params.b_strides[dim];
  }
};

template <typename Function>
void binary(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const BinaryParams*>(userdata);
  const Function f{params.alpha};
  const auto* a = static_cast<const float*>(result->src[0]->data) + params.a_offset;
  const auto* b = static_cast<const float*>(result->src[1]->data) + params.b_offset;
  auto* to = static_cast<float*>(result->data);
  const size_t last = params.sizes.size() - 1;
  const RunFunction<Function> run =
      choose_run<Function>(params.a_strides[last], params.b_strides[last]);
  const Range range = part_of(element_count(params.sizes), ith, nth, kGrain);
  if (range.first == range.last) return;
  Walk walk(params, range.first);
  // What is rounded stays in the first-level cache until then.
  const int64_t most = params.precision == Precision::Float32 ? range.last : simd::kRounded;
  for (int64_t i = range.first; i < range.last;) {
    const int64_t count = std::min({walk.left_in_row(), range.last - i, most});
    run({a + walk.a, b + walk.b, to + i, count, params.a_strides[last], params.b_strides[last]}, f);
    simd::round_to(params.precision, to + i, count);
    i += count;
    walk.advance(count);
  }
}

}  // namespace

ggml_custom_op_t binary_kernel(ir::BinaryKind kind) {
  switch (kind) {
    case ir::BinaryKind_Add:
    case ir::BinaryKind_Sub:
      return binary<Add>;
    case ir::BinaryKind_Mul:
      return binary<Multiply>;
    case ir::BinaryKind_Div:
      return binary<Divide>;
    case ir::BinaryKind_Minimum:
      return binary<Minimum>;
    case ir::BinaryKind_Maximum:
      return binary<Maximum>;
    case ir::BinaryKind_Prelu:
      return binary<Prelu>;
  }
  return nullptr;
}

}  // namespace ggml_delegate
