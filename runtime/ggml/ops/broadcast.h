// What ops with broadcasting operands have in common.
#pragma once

#include "../strided.h"

namespace ggml_delegate {

// Torch's broadcasting of both sizes; false when they do not fit together.
bool broadcast_sizes(const Sizes& a, const Sizes& b, Sizes* sizes);

// The view with dimensions prepended up to `rank`; dimensions of size 1 have stride 0.
StridedView with_rank(const StridedView& view, size_t rank);

// Number of elements in memory: repetitions do not count.
int64_t stored_count(const StridedView& view);

// The ne of a dense result of these sizes in this order; one row above rank 4.
void dense_ne(const Sizes& sizes, const Order& order, int64_t (&ne)[4]);

}  // namespace ggml_delegate
