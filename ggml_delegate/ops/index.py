"""Rules for indexing by tensors: x[i, j], x[i] = v, gather."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, Size, node_value
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import MAX_RANK, OpRule, register

_INDEX_DTYPES = (torch.int32, torch.int64)
# Index tensors of one op.
MAX_INDICES = int(ir.Limit.Indices)


class _Indexing(OpRule):
    """Indexing by tensors of integers in neighbouring dimensions."""

    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses masks, and indices in dimensions that are not neighbours."""
        places = self._places(node)
        if not places or len(places) > MAX_INDICES:
            return Reason("unsupported", f"indexing by {len(places)} tensors")
        if places != list(range(places[0], places[0] + len(places))):
            return Reason("unsupported", "indexing of dimensions that are not neighbours")
        values = [node_value(index) for index in self._indices(node)]
        for value in values:
            if value.dtype not in _INDEX_DTYPES:
                return Reason(
                    "unsupported", f"indices have dtype {str(value.dtype).removeprefix('torch.')}"
                )
        sizes = _broadcast([list(value.shape) for value in values])
        if sizes is None:
            return Reason("unsupported", "indices of sizes that do not fit together")
        if node.rank(0) - len(places) + len(sizes) > MAX_RANK:
            return Reason("rank", "a result of too high a rank")
        return inexpressible([*node.out_sizes(), *sizes])

    def _places(self, node: NodeView) -> list[int]:
        """The dimensions that are indexed."""
        given = node.arg(1, "indices")
        return [dim for dim, index in enumerate(given) if index is not None]

    def _indices(self, node: NodeView) -> list[torch.fx.Node]:
        return [index for index in node.arg(1, "indices") if index is not None]

    def _index_numbers(self, node: NodeView, builder: Builder) -> list[int]:
        """Tensor numbers of the indices, expanded to one shape."""
        nodes = self._indices(node)
        sizes = _broadcast([list(node_value(index).shape) for index in nodes])
        assert sizes is not None
        numbers = []
        for index in nodes:
            number, value = builder.value(index), node_value(index)
            if len(nodes) > 1 and list(value.shape) != sizes:
                number = builder.temp(ir.Expand(), [number], sizes, value.dtype)
            numbers.append(number)
        return numbers


@register
class IndexRule(_Indexing):
    """x[:, i, j]: elements by tensors of integers; below 0 they count from the end."""

    targets = ("aten.index.Tensor",)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op by one tensor, else one Index op."""
        dim, numbers = self._places(node)[0], self._index_numbers(node, builder)
        x = builder.value(node.node(0))
        if len(numbers) == 1:
            builder.emit(ir.Embedding(dim=dim, wrap=True), [x, *numbers], node.fx)
        else:
            builder.emit(ir.Index(dim=dim), [x, *numbers], node.fx)


@register
class IndexPutRule(_Indexing):
    """x[:, i, j] = v, not accumulated: how key-value caches are written."""

    targets = ("aten.index_put.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses accumulation, and what index refuses."""
        if node.arg(3, "accumulate", False):
            return Reason("unsupported", "index_put that accumulates")
        if node.dtype(0) != node.dtype(2) or node.is_constant(0):
            return Reason("dtype", "index_put of another dtype, or into a constant")
        return super().check(node)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """An Expand of the values where they are repeated, then one IndexPut op."""
        dim, numbers = self._places(node)[0], self._index_numbers(node, builder)
        values = builder.value(node.node(2))
        sizes = self._value_sizes(node, dim)
        if node.sizes(2) != sizes:
            values = builder.temp(ir.Expand(), [values], sizes, node.out_dtype())
        builder.emit(ir.IndexPut(dim=dim), [builder.value(node.node(0)), values, *numbers], node.fx)

    def _value_sizes(self, node: NodeView, dim: int) -> list[Size]:
        indices = _broadcast([list(node_value(index).shape) for index in self._indices(node)])
        assert indices is not None
        sizes = node.sizes(0)
        return [*sizes[:dim], *indices, *sizes[dim + len(self._places(node)) :]]


@register
class GatherRule(OpRule):
    """aten.gather. An index outside of the tensor is an error at run time, as in torch."""

    targets = ("aten.gather.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers in place of tensors."""
        if node.rank(0) == 0 or node.rank(2) != node.rank(0):
            return Reason("unsupported", "gathers from or by a number")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Gather op."""
        dim = in_range(node.arg(1, "dim"), node.rank(0))
        inputs = [builder.value(node.node(0)), builder.value(node.node(2))]
        builder.emit(ir.Gather(dim=dim), inputs, node.fx)


def _broadcast(shapes: list[list[Size]]) -> list[Size] | None:
    """The sizes that these broadcast to; None where that is not certain from the sizes alone."""
    result: list[Any] = []
    for sizes in shapes:
        short, long = sorted((list(sizes), result), key=len)
        short = [1] * (len(long) - len(short)) + short
        result = []
        for a, b in zip(short, long, strict=True):
            if isinstance(a, int) and a == 1:
                result.append(b)
            elif (isinstance(b, int) and b == 1) or str(a) == str(b):
                result.append(a)
            else:
                return None
    return result
