// Recurrent layers: step by step through whole sequences.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace ggml_delegate {

enum class Cell { Lstm, Gru, Tanh, Relu };

inline constexpr int64_t gate_count(Cell cell) {
  return cell == Cell::Lstm ? 4 : (cell == Cell::Gru ? 3 : 1);
}

struct RecurrentParams {
  Cell cell = Cell::Lstm;
  int64_t steps = 0;
  int64_t batch = 0;
  int64_t directions = 1;
  int64_t units = 0;    // of a direction
  int64_t outputs = 0;  // of a direction: fewer than units where these are projected
  // Of the first gate in src[0], in elements; rows of neighbouring steps and sequences; the same of
  // the hidden states in the result.
  int64_t gates_offset = 0;
  int64_t gates_step = 0;
  int64_t gates_batch = 0;
  int64_t result_step = 0;
  int64_t result_batch = 0;
  // Where in the result the last hidden state and cell state go, in elements; below 0: nowhere.
  int64_t last_hidden = -1;
  int64_t last_cell = -1;
  // Places among the sources; 0: there is none.
  int cell_source = 0;
  int projection_source = 0;
  int bias_source = 0;
};

// src[0], src[1] and src[2] hold gates, weight and hidden state as the schema's Recurrent says, all
// float32. The result holds the hidden states of all steps [steps, batch, directions * outputs] and
// perhaps the last states behind them. `userdata` is a RecurrentParams.
void recurrent_kernel(ggml_tensor* result, int ith, int nth, void* userdata);

}  // namespace ggml_delegate
