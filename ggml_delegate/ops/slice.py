"""Rules for ops that take a part of a tensor: slice, select, split, chunk, unbind."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.in_place import may_update_in_place
from ggml_delegate.node_view import NodeView, Size, op_name
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register
from ggml_delegate.symbols import lower_bound

MAX_STEP = (1 << 32) - 1


def _start(bound: Any, size: Size) -> Size | None:
    """Where a slice from `bound` on begins, within 0 and `size`; None if that is not certain."""
    if bound is None:
        return 0
    if isinstance(bound, int) and bound < 0:
        return _clamped(size + bound, 0, size)
    if lower_bound(bound) < 0:
        return None
    return _clamped(bound, 0, size)


def _clamped(value: Size, low: int, high: Size) -> Size:
    if isinstance(value, int) and isinstance(high, int):
        return min(max(value, low), high)
    result: Size = torch.sym_min(value, high)  # type: ignore[no-untyped-call]
    if lower_bound(result) < low:
        result = torch.sym_max(result, low)  # type: ignore[no-untyped-call]
    return result


@register
class SliceRule(OpRule):
    """slice along one dimension, with any bounds and steps."""

    targets = ("aten.slice_copy.Tensor", "aten.slice.Tensor")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses a start or step that is only known at run time."""
        step = node.arg(4, "step", 1)
        if not isinstance(step, int) or step > MAX_STEP:
            return Reason("run-time", "the step of a slice is not known")
        start = self._start(node)
        if start is None:
            return Reason("negative-index", "the start of a slice may be below 0")
        return inexpressible([start, *node.out_sizes()])

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Slice op; where it ends follows from the result's sizes."""
        start = self._start(node)
        assert start is not None
        op = ir.Slice(
            dim=in_range(node.arg(1, "dim", 0), node.rank(0)),
            start=builder.dim(start),
            step=node.arg(4, "step", 1),
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)

    @staticmethod
    def _start(node: NodeView) -> Size | None:
        dim = node.arg(1, "dim", 0)
        return _start(node.arg(2, "start", None), node.sizes(0)[dim])


@register
class SelectRule(OpRule):
    """select: one element of a dimension, which disappears."""

    targets = ("aten.select_copy.int", "aten.select.int")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses an index that is only known at run time and may count from the end."""
        index = self._index(node)
        if index is None:
            return Reason("negative-index", "the index of a select may be below 0")
        return inexpressible([index, *node.out_sizes()])

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Slice op that drops its dimension."""
        index = self._index(node)
        assert index is not None
        dim = in_range(node.arg(1, "dim"), node.rank(0))
        op = ir.Slice(dim=dim, start=builder.dim(index), squeeze=True)
        builder.emit(op, [builder.value(node.node(0))], node.fx)

    @staticmethod
    def _index(node: NodeView) -> Size | None:
        size, index = node.sizes(0)[node.arg(1, "dim")], node.arg(2, "index")
        if isinstance(index, int):
            return index + size if index < 0 else index
        return index if lower_bound(index) >= 0 else None


@register
class SplitRule(OpRule):
    """split, chunk and unbind: parts that follow one another along a dimension."""

    targets = (
        "aten.split_copy.Tensor",
        "aten.split.Tensor",
        "aten.split_with_sizes_copy.default",
        "aten.split_with_sizes.default",
        "aten.unbind_copy.int",
        "aten.unbind.int",
        "aten.chunk.default",
    )
    integer_inputs = True
    outputs_via_getitem = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses sizes that the runtime cannot work out."""
        sizes = [size for part in self._parts(node) for size in part.shape]
        return inexpressible([*sizes, *self._starts(node)])

    def defined_outputs(self, node: NodeView) -> set[int]:
        """All of them."""
        return set(range(len(self._parts(node))))

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Slice op for each part that something reads."""
        source = builder.value(node.node(0))
        parts, starts = self._parts(node), self._starts(node)
        dim = self._dim(node)
        results = {}
        for index in self._read(node.fx):
            op = ir.Slice(dim=dim, start=builder.dim(starts[index]), squeeze=self._unbinds(node))
            part = parts[index]
            results[index] = builder.temp(op, [source], list(part.shape), part.dtype)
        builder.define(node.fx, results)

    @staticmethod
    def _parts(node: NodeView) -> Sequence[torch.Tensor]:
        parts: Sequence[torch.Tensor] = node.fx.meta["val"]
        return parts

    @staticmethod
    def _unbinds(node: NodeView) -> bool:
        return "unbind" in op_name(node.fx)

    def _dim(self, node: NodeView) -> int:
        position = 1 if self._unbinds(node) else 2
        return in_range(node.arg(position, "dim", 0), node.rank(0))

    def _starts(self, node: NodeView) -> list[Size]:
        parts, dim = self._parts(node), self._dim(node)
        if self._unbinds(node):
            return list(range(len(parts)))
        starts: list[Size] = [0]
        for part in parts[:-1]:
            starts.append(starts[-1] + part.shape[dim])
        return starts

    @staticmethod
    def _read(node: torch.fx.Node) -> list[int]:
        reads = {user.args[1] for user in node.users if user.target is operator.getitem}
        return sorted(index for index in reads if isinstance(index, int))


@register
class ScatterRule(OpRule):
    """slice_scatter and select_scatter: a tensor with a part of it replaced."""

    targets = ("aten.slice_scatter.default", "aten.select_scatter.default")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses steps, starts only known at run time, and parts of another dtype."""
        if node.dtype(0) != node.dtype(1) or node.out_dtype() != node.dtype(0):
            return Reason("dtype", "a part of another dtype")
        if node.rank(0) == 0 or not isinstance(node.sizes(0)[self._dim(node)], int):
            return Reason("dynamic", "a part of a dynamic dimension")
        if "slice" in op_name(node.fx) and node.arg(5, "step", 1) != 1:
            return Reason("unsupported", "a part with gaps")
        if not isinstance(self._given(node), (int, type(None))):
            return Reason("run-time", "a part whose place is only known at run time")
        return inexpressible([*node.out_sizes(), *node.sizes(1)])

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A Concat of what lies before, the part, and what lies behind.

        Of state that can be changed where it is, or a part of dynamic size, one IndexPut op.
        """
        dim, dtype = self._dim(node), node.out_dtype()
        whole, part = builder.value(node.node(0)), builder.value(node.node(1))
        size = int(node.sizes(0)[dim])
        start, end = self._bounds(node, size)
        if not isinstance(end, int):
            places = builder.constant(torch.arange(start, size, dtype=torch.int32))
            op, count = ir.Slice(dim=0, start=builder.dim(0)), node.sizes(1)[dim]
            places = builder.temp(op, [places], [count], torch.int32)
            builder.emit(ir.IndexPut(dim=dim), [whole, part, places], node.fx)
            return
        if start == end:
            builder.alias(node.fx, whole)
            return

        def piece(op: Any, source: int, count: int) -> list[int]:
            sizes = node.out_sizes()
            sizes[dim] = count
            return [builder.temp(op, [source], sizes, dtype)] if count else []

        if may_update_in_place(node.fx):
            places = builder.constant(torch.arange(start, end, dtype=torch.int32))
            values = piece(ir.Reshape(), part, end - start)
            builder.emit(ir.IndexPut(dim=dim), [whole, *values, places], node.fx)
            return
        pieces = [
            *piece(ir.Slice(dim=dim, start=builder.dim(0)), whole, start),
            *piece(ir.Reshape(), part, end - start),
            *piece(ir.Slice(dim=dim, start=builder.dim(end)), whole, size - end),
        ]
        builder.emit(ir.Concat(dim=dim), pieces, node.fx)

    @staticmethod
    def _dim(node: NodeView) -> int:
        return in_range(node.arg(2, "dim", 0), node.rank(0))

    @staticmethod
    def _given(node: NodeView) -> Any:
        return node.arg(3, "index" if "select" in op_name(node.fx) else "start", None)

    def _bounds(self, node: NodeView, size: int) -> tuple[int, int | None]:
        """From where to where the part goes; None: as far as it goes at run time."""
        first = self._given(node)
        if "select" in op_name(node.fx):
            return first % size, first % size + 1
        start, _, _ = slice(first, None).indices(size)
        count = node.sizes(1)[self._dim(node)]
        return start, start + count if isinstance(count, int) else None
