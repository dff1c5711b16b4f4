// Views of memory by logical strides: what slicing and reshaping do without touching an element.
#pragma once

#include "log.h"
#include "value.h"

namespace ggml_delegate {

class GraphBuilder;

// Element i0, i1, ... of the view is base->data[offset + sum of i * stride].
struct StridedView {
  ggml_tensor* base = nullptr;
  int64_t offset = 0;  // in elements
  Sizes sizes;
  Sizes strides;  // in elements, one per dimension; anything where the size is 1; 0: repeated
};

// The value as a view; one that waits to be copied (see GraphBuilder::defer) as what it views.
StridedView strided(const GraphBuilder& builder, const Value& value);

// The value as it lies in memory; one that waits to be copied as the copy.
StridedView as_stored(const Value& value);

// Dimensions in the sequence they have in memory. One of size 1, or repeated, follows the
// dimension before it.
Order memory_order(const StridedView& view);

// Strides of the same elements under other sizes (of the same count), as torch.Tensor.view finds
// them. False where elements would have to move.
bool reshape_strides(const StridedView& view, const Sizes& sizes, Sizes* strides);

// A value of the view's elements: free where value.h can say it, else a copy in the view's memory
// order, deferred until something reads it.
Result<Value> to_value(GraphBuilder& builder, const StridedView& view);

// A dense copy of the view in `order`.
Result<Value> copy_to_order(GraphBuilder& builder, const StridedView& view, const Order& order);

}  // namespace ggml_delegate
