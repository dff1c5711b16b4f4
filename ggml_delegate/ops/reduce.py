"""Rules for reductions other than softmax: sums, extremes, masks, places; and running sums."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, Size, op_name
from ggml_delegate.ops.operand import operand
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.ranges import is_int32, node_range
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import FLOAT_DTYPES, HALF_DTYPES, INTEGER_DTYPES, OpRule, register
from ggml_delegate.symbols import lower_bound, upper_bound

_KINDS = {
    "mean": ir.ReduceKind.Mean,
    "sum": ir.ReduceKind.Sum,
    "prod": ir.ReduceKind.Prod,
    "amax": ir.ReduceKind.Max,
    "amin": ir.ReduceKind.Min,
    "max": ir.ReduceKind.Max,
    "min": ir.ReduceKind.Min,
    "any": ir.ReduceKind.Any,
    "all": ir.ReduceKind.All,
    "argmax": ir.ReduceKind.ArgMax,
    "argmin": ir.ReduceKind.ArgMin,
}
_DTYPES = (*FLOAT_DTYPES, *INTEGER_DTYPES)


def _name(node: NodeView) -> str:
    return op_name(node.fx).split(".")[1]


def reduced_dims(node: NodeView) -> list[int]:
    """The dimensions that a reduction goes over, ascending."""
    rank = node.rank(0)
    dims: Any = None
    if op_name(node.fx) not in (f"aten.{_name(node)}.default",) or _name(node) in _DIM_IN_DEFAULT:
        dims = node.arg(1, "dim")
    if isinstance(dims, int):
        dims = [dims]
    if not dims:  # None and [] both mean all
        return list(range(rank))
    return sorted(int(dim) % rank for dim in dims)


_DIM_IN_DEFAULT = ("amax", "amin", "argmax", "argmin")


def _runs(dims: list[int]) -> list[tuple[int, int]]:
    """Neighbouring dims as (first, count), the last run first."""
    runs: list[tuple[int, int]] = []
    for dim in dims:
        if runs and sum(runs[-1]) == dim:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((dim, 1))
    return runs[::-1]


def _reduce(
    builder: Builder, kind: int, source: int, sizes: list[Size], dims: list[int], dtype: torch.dtype
) -> tuple[int, list[Size]]:
    """Reduces `dims`; returns the result's number and sizes, without these dims.

    Dims that are neighbours become one by a Reshape, which is free in most layouts.
    """
    sizes = list(sizes)
    for first, count in _runs(dims):
        if count > 1:
            merged = sizes[first]
            for size in sizes[first + 1 : first + count]:
                merged = merged * size
            sizes[first : first + count] = [merged]
            source = builder.temp(ir.Reshape(), [source], sizes, dtype)
        del sizes[first]
        source = builder.temp(ir.Reduce(kind=kind, dim=first), [source], sizes, dtype)
    return source, sizes


class _Reduction(OpRule):
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers alone, dtypes that ggml lacks, and integers that may exceed 32 bits."""
        name, rank = _name(node), node.rank(0)
        if rank == 0:
            return Reason("unsupported", f"{name} of a scalar")
        if (reason := self._check_dtypes(node)) is not None:
            return reason
        may_be_empty = any(lower_bound(node.sizes(0)[dim]) < 1 for dim in reduced_dims(node))
        if may_be_empty and name not in ("mean", "sum"):
            return Reason("empty", f"{name} over a dimension that may have no elements")
        return self._check_integers(node) or inexpressible(node.out_sizes())

    @staticmethod
    def _check_dtypes(node: NodeView) -> Reason | None:
        name, source, result = _name(node), node.dtype(0), node.out_dtype()
        if source not in _DTYPES or result not in _DTYPES:
            unfit = result if source in _DTYPES else source
            return unfit_dtype(unfit, f"{name} from {source} to {result}")
        masks_or_places = name in ("any", "all", "argmax", "argmin")
        narrower = source != result and result in HALF_DTYPES
        if (
            source.is_floating_point
            and not masks_or_places
            and (narrower or not result.is_floating_point)
        ):
            return Reason("converts", f"{name} that converts its input")
        return None

    @staticmethod
    def _check_integers(node: NodeView) -> Reason | None:
        name, source = _name(node), node.fx.args[0]
        if node.out_dtype().is_floating_point:
            if node.dtype(0) not in FLOAT_DTYPES:
                return Reason("integers", f"{name} of integers as floats")
            return None
        if name == "prod":
            return Reason("range", "a product of integers may exceed int32")
        if name in ("sum", "cumsum"):
            assert isinstance(source, torch.fx.Node)
            count = 1
            for dim in reduced_dims(node):
                count *= upper_bound(node.sizes(0)[dim])
            low, high = node_range(source, node.constants)
            if not is_int32((min(low, 0) * count, max(high, 0) * count)):
                return Reason("range", "a sum of integers may exceed int32")
        return None


@register
class ReduceRule(_Reduction):
    """mean, sum, prod, amax, amin, any and all over any dimensions."""

    targets = (
        "aten.mean.dim",
        "aten.mean.default",
        "aten.sum.dim_IntList",
        "aten.sum.default",
        "aten.prod.default",
        "aten.prod.dim_int",
        "aten.amax.default",
        "aten.amin.default",
        "aten.max.default",
        "aten.min.default",
        "aten.any.default",
        "aten.any.dim",
        "aten.any.dims",
        "aten.all.default",
        "aten.all.dim",
        "aten.all.dims",
    )

    def check(self, node: NodeView) -> Reason | None:
        """Leaves global average pooling, in which others are better, to them where they take it."""
        rank, dims = node.rank(0), reduced_dims(node) if node.rank(0) else []
        pools = _name(node) == "mean" and rank == 4 and dims == [2, 3]
        if pools and node.dtype(0) != torch.bfloat16:
            return Reason("elsewhere", "mean over several dims: left to other backends")
        return super().check(node)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Reduce ops, and a Reshape where dims stay as 1."""
        name = _name(node)
        dtype = torch.bool if name in ("any", "all") else node.out_dtype()
        source = operand(node, builder, 0, dtype)
        dims = reduced_dims(node)
        if len(dims) == 1:
            keepdim = len(node.out_sizes()) == node.rank(0)
            op = ir.Reduce(kind=_KINDS[name], dim=dims[0], keepdim=keepdim)
            builder.emit(op, [source], node.fx)
            return
        exact = torch.float32 if dtype.is_floating_point else dtype
        result, _ = _reduce(builder, _KINDS[name], source, node.sizes(0), dims, exact)
        builder.emit(ir.Reshape(), [result], node.fx)


@register
class PlaceRule(_Reduction):
    """argmax and argmin along one dimension, or over all elements."""

    targets = ("aten.argmax.default", "aten.argmin.default")

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Reduce op, of all elements in a row if no dimension is given."""
        kind, source = _KINDS[_name(node)], builder.value(node.node(0))
        dims = reduced_dims(node)
        if len(dims) == 1:
            keepdim = len(node.out_sizes()) == node.rank(0)
            builder.emit(ir.Reduce(kind=kind, dim=dims[0], keepdim=keepdim), [source], node.fx)
            return
        count: Size = 1
        for size in node.sizes(0):
            count = count * size
        dtype = node.dtype(0)
        assert dtype is not None
        row = builder.temp(ir.Reshape(), [source], [count], dtype)
        place = builder.temp(ir.Reduce(kind=kind, dim=0), [row], [], torch.int64)
        builder.emit(ir.Reshape(), [place], node.fx)


@register
class ExtremeRule(_Reduction):
    """max and min along a dimension, with their places."""

    targets = ("aten.max.dim", "aten.min.dim")
    outputs_via_getitem = True

    def defined_outputs(self, node: NodeView) -> set[int]:
        """Values and places."""
        return {0, 1}

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Reduce op for each result that something reads."""
        (dim,) = reduced_dims(node)
        keepdim = len(node.out_sizes()) == node.rank(0)
        name = _name(node)
        results = {}
        for index, kind in enumerate((_KINDS[name], _KINDS[f"arg{name}"])):
            if any(user.args[1] == index and user.users for user in node.fx.users):
                op = ir.Reduce(kind=kind, dim=dim, keepdim=keepdim)
                results[index] = builder.temp(
                    op, [builder.value(node.node(0))], node.out_sizes(), node.out_dtype(index)
                )
        builder.define(node.fx, results)


@register
class CumSumRule(_Reduction):
    """cumsum along a dimension; that of a number is the number."""

    targets = ("aten.cumsum.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Takes numbers too."""
        return super().check(node) if node.rank(0) else self._check_dtypes(node)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One CumSum op, or a copy."""
        source = operand(node, builder, 0, node.out_dtype())
        if node.rank(0) == 0:
            builder.emit(ir.Copy(), [source], node.fx)
            return
        dim = int(node.arg(1, "dim")) % node.rank(0)
        builder.emit(ir.CumSum(dim=dim), [source], node.fx)
