#include "recurrent.h"

#include <algorithm>
#include <vector>

#include "gemm.h"
#include "vector_math.h"
#include "work.h"

namespace ggml_delegate {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr int64_t kBlock = kPanelWidth;  // units whose gates lie next to each other

int64_t blocks_of(int64_t units) { return (units + kBlock - 1) / kBlock; }

// One sequence in one step.
struct Row {
  const float* from_input;   // to the gates
  const float* from_state;   // to the gates
  const float* bias;         // Gru: [units], or null
  const float* last_hidden;  // [units]
  float* cell;               // Lstm: [units], read and written
  float* hidden;             // [units]
};

// Calls step(gates, unit, count) for `count` <= kLanes units at a time; the first gate's numbers
// for these start at `gates`, those of the next ones kBlock elements further each.
template <int64_t Gates, typename Step>
inline void for_units(int64_t units, Step step) {
  for (int64_t unit = 0; unit < units; unit += kLanes) {
    const int64_t gates = unit / kBlock * kBlock * Gates + unit % kBlock;
    step(gates, unit, std::min<int64_t>(units - unit, kLanes));
  }
}

inline Vec load_units(const float* from, int64_t count) {
  return count == kLanes ? simd::load(from) : simd::load_part(from, count);
}

inline void store_units(float* to, Vec v, int64_t count) {
  count == kLanes ? simd::store(to, v) : simd::store_part(to, v, count);
}

// torch.nn.LSTM: c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').
void lstm_row(const Row& row, int64_t units) {
  for_units<4>(units, [&](int64_t gates, int64_t unit, int64_t count) {
    const auto gate = [&](int64_t i) {
      return simd::load(row.from_input + gates + i * kBlock) +
             simd::load(row.from_state + gates + i * kBlock);
    };
    const Vec kept = simd::sigmoid(gate(1)) * simd::load(row.cell + unit);
    const Vec cell = kept + simd::sigmoid(gate(0)) * simd::tanh(gate(2));
    simd::store(row.cell + unit, cell);
    store_units(row.hidden + unit, simd::sigmoid(gate(3)) * simd::tanh(cell), count);
  });
}

// torch.nn.GRU: n' = tanh(n + sigmoid(r) (W h + b)), h' = n' + sigmoid(z) (h - n').
void gru_row(const Row& row, int64_t units) {
  for_units<3>(units, [&](int64_t gates, int64_t unit, int64_t count) {
    const auto input = [&](int64_t i) { return simd::load(row.from_input + gates + i * kBlock); };
    const auto state = [&](int64_t i) { return simd::load(row.from_state + gates + i * kBlock); };
    Vec inner = state(2);
    if (row.bias != nullptr) inner += simd::load(row.bias + unit);
    const Vec fresh = simd::tanh(input(2) + simd::sigmoid(input(0) + state(0)) * inner);
    const Vec last = load_units(row.last_hidden + unit, count);
    const Vec hidden = fresh + simd::sigmoid(input(1) + state(1)) * (last - fresh);
    store_units(row.hidden + unit, hidden, count);
  });
}

template <bool Relu>
void simple_row(const Row& row, int64_t units) {
  for_units<1>(units, [&](int64_t gates, int64_t unit, int64_t count) {
    const Vec sum = simd::load(row.from_input + gates) + simd::load(row.from_state + gates);
    store_units(row.hidden + unit, Relu ? simd::larger(Vec{}, sum) : simd::tanh(sum), count);
  });
}

using RowKernel = void (*)(const Row& row, int64_t units);

RowKernel row_kernel(Cell cell) {
  switch (cell) {
    case Cell::Lstm:
      return lstm_row;
    case Cell::Gru:
      return gru_row;
    case Cell::Tanh:
      return simple_row<false>;
    case Cell::Relu:
      break;
  }
  return simple_row<true>;
}

const float* source(const ggml_tensor* result, int i) {
  return static_cast<const float*>(result->src[i]->data);
}

// Some sequences in one direction. They need nothing of the others, so that threads never wait.
class Sequences {
 public:
  Sequences(const ggml_tensor* result, const RecurrentParams& params, int64_t direction, Range rows)
      : p_(params),
        direction_(direction),
        rows_(rows),
        count_(rows.last - rows.first),
        padded_(blocks_of(params.units) * kBlock),
        width_(padded_ * gate_count(params.cell)),
        gates_(source(result, 0) + params.gates_offset + rows.first * params.gates_batch +
               direction * width_),
        result_(static_cast<float*>(result->data)),
        hidden_(result_ + rows.first * params.result_batch + direction * params.outputs) {
    place_scratch();
    read_sources(*result);
  }

  void run() {
    const float* last = first_hidden_;
    int64_t stride = p_.outputs;
    for (int64_t step = 0; step < p_.steps; ++step) {
      const int64_t at = direction_ == 0 ? step : p_.steps - 1 - step;
      float* hidden = hidden_ + at * p_.result_step;
      multiply(last, stride, p_.outputs, weight_, width_, product_, width_);
      take_step(gates_ + at * p_.gates_step, last, stride, hidden);
      last = hidden;
      stride = p_.result_batch;
    }
    write_last(last);
  }

 private:
  // Rows of the gates' products, cell states, and what is to be projected.
  void place_scratch() {
    thread_local std::vector<float> scratch;
    const auto size = static_cast<size_t>(count_ * (width_ + 2 * padded_));
    if (scratch.size() < size) scratch.resize(size);
    product_ = scratch.data();
    cell_ = product_ + count_ * width_;
    unprojected_ = cell_ + count_ * padded_;
  }

  void read_sources(const ggml_tensor& result) {
    const int64_t first = direction_ * p_.batch + rows_.first;
    weight_ = source(&result, 1) + direction_ * width_ * p_.outputs;
    first_hidden_ = source(&result, 2) + first * p_.outputs;
    if (p_.projection_source != 0) {
      projection_ = source(&result, p_.projection_source) +
                    direction_ * blocks_of(p_.outputs) * kBlock * p_.units;
    }
    if (p_.bias_source != 0) bias_ = source(&result, p_.bias_source) + direction_ * padded_;
    if (p_.cell_source == 0) return;
    std::fill(cell_, cell_ + count_ * padded_, 0.0F);
    const float* cell = source(&result, p_.cell_source) + first * p_.units;
    for (int64_t i = 0; i < count_; ++i) {
      std::copy_n(cell + i * p_.units, p_.units, cell_ + i * padded_);
    }
  }

  // result [count, n] = left [count, k] @ right
  void multiply(const float* left, int64_t left_stride, int64_t k, const float* right, int64_t n,
                float* result, int64_t result_stride) const {
    Gemm op;
    op.m = count_;
    op.n = n;
    op.k = k;
    op.left.data = left;
    op.left.stride = left_stride;
    op.right.data = right;
    op.result = result;
    op.result_stride = result_stride;
    gemm(op, 0, 1);
  }

  void take_step(const float* gates, const float* last, int64_t last_stride, float* hidden) {
    const RowKernel kernel = row_kernel(p_.cell);
    const bool projects = projection_ != nullptr;
    for (int64_t i = 0; i < count_; ++i) {
      Row row{};
      row.from_input = gates + i * p_.gates_batch;
      row.from_state = product_ + i * width_;
      row.bias = bias_;
      row.last_hidden = last + i * last_stride;
      row.cell = cell_ + i * padded_;
      row.hidden = projects ? unprojected_ + i * padded_ : hidden + i * p_.result_batch;
      kernel(row, p_.units);
    }
    if (projects) {
      multiply(unprojected_, padded_, p_.units, projection_, p_.outputs, hidden, p_.result_batch);
    }
  }

  void write_last(const float* hidden) {
    const int64_t first = direction_ * p_.batch + rows_.first;
    for (int64_t i = 0; i < count_; ++i) {
      if (p_.last_hidden >= 0) {
        std::copy_n(hidden + i * p_.result_batch, p_.outputs,
                    result_ + p_.last_hidden + (first + i) * p_.outputs);
      }
      if (p_.last_cell >= 0) {
        std::copy_n(cell_ + i * padded_, p_.units, result_ + p_.last_cell + (first + i) * p_.units);
      }
    }
  }

  const RecurrentParams& p_;
  int64_t direction_;
  Range rows_;
  int64_t count_;
  int64_t padded_;  // units, to whole blocks
  int64_t width_;   // of the gates
  const float* gates_;
  float* result_;
  float* hidden_;
  const float* weight_ = nullptr;
  const float* projection_ = nullptr;
  const float* bias_ = nullptr;
  const float* first_hidden_ = nullptr;
  float* product_ = nullptr;
  float* cell_ = nullptr;
  float* unprojected_ = nullptr;
};

}  // namespace

void recurrent_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const RecurrentParams*>(userdata);
  const Range part = part_of(params.directions * params.batch, ith, nth);
  for (int64_t direction = 0; direction < params.directions; ++direction) {
    const int64_t first = direction * params.batch;
    const Range rows{std::max<int64_t>(part.first - first, 0),
                     std::min(part.last - first, params.batch)};
    if (rows.first < rows.last) Sequences(result, params, direction, rows).run();
  }
}

}  // namespace ggml_delegate
