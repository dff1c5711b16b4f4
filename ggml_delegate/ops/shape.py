"""Rules for ops that only change sizes or the order of dimensions, and for those that repeat."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, Size, op_name
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import (
    FLOAT_DTYPES,
    HALF_DTYPES,
    INTEGER_DTYPES,
    MAX_RANK,
    OpRule,
    register,
)
from ggml_delegate.symbols import is_expressible


def inexpressible(sizes: list[Size]) -> Reason | None:
    """Why the runtime could not work out these sizes, or None."""
    for size in sizes:
        if not is_expressible(size):
            return Reason("unsupported", f"the size {size} has no integer form")
    return None


def in_range(dim: int, rank: int) -> int:
    """A dimension counted from the end (below 0) as one counted from the start."""
    return dim + rank if dim < 0 else dim


@register
class ReshapeRule(OpRule):
    """view, reshape, squeeze and unsqueeze: the same elements under other sizes."""

    targets = (
        "aten.view_copy.default",
        "aten.view.default",
        "aten.reshape.default",
        "aten._unsafe_view.default",
        "aten.unsqueeze_copy.default",
        "aten.unsqueeze.default",
        "aten.squeeze_copy.default",
        "aten.squeeze_copy.dim",
        "aten.squeeze_copy.dims",
        "aten.squeeze.default",
        "aten.squeeze.dim",
        "aten.squeeze.dims",
    )
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses sizes that the runtime cannot work out."""
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Reshape op; the sizes are the result's."""
        builder.emit(ir.Reshape(), [builder.value(node.node(0))], node.fx)


@register
class PermuteRule(OpRule):
    """permute, transpose and t."""

    targets = (
        "aten.permute_copy.default",
        "aten.permute.default",
        "aten.transpose_copy.int",
        "aten.transpose.int",
        "aten.t_copy.default",
        "aten.t.default",
    )
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses sizes that the runtime cannot work out."""
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Permute op."""
        builder.emit(ir.Permute(dims=_permutation(node)), [builder.value(node.node(0))], node.fx)


def _permutation(node: NodeView) -> list[int]:
    rank = node.rank(0)
    name = op_name(node.fx)
    if "permute" in name:
        return [in_range(dim, rank) for dim in node.arg(1, "dims")]
    dims = list(range(rank))
    if rank == 0:
        return dims
    first, second = (
        (0, 1) if "transpose" not in name else (node.arg(1, "dim0"), node.arg(2, "dim1"))
    )
    if rank > 1:
        first, second = in_range(first, rank), in_range(second, rank)
        dims[first], dims[second] = dims[second], dims[first]
    return dims


@register
class ExpandRule(OpRule):
    """expand: dimensions of size 1, and new ones, are repeated."""

    targets = ("aten.expand_copy.default", "aten.expand.default")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses sizes that the runtime cannot work out."""
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Expand op; the sizes are the result's."""
        builder.emit(ir.Expand(), [builder.value(node.node(0))], node.fx)


@register
class RepeatRule(OpRule):
    """repeat: the tensor laid side by side."""

    targets = ("aten.repeat.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses more ways of repeating than the runtime's copy has dimensions."""
        sizes = node.out_sizes()
        own = [1] * (len(sizes) - node.rank(0)) + node.sizes(0)
        times = node.arg(1, "repeats")
        ways = sum(_is_not_one(size) for size in own) + sum(_is_not_one(time) for time in times)
        if ways > MAX_RANK:
            return Reason("rank", f"repeats in {ways} ways, at most {MAX_RANK} are possible")
        return inexpressible(sizes)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Repeat op; how often follows from the result's sizes."""
        builder.emit(ir.Repeat(), [builder.value(node.node(0))], node.fx)


def _is_not_one(size: Size) -> bool:
    return not isinstance(size, int) or size != 1


# What each dtype is converted to; floats may exceed the runtime's integers.
_FROM_FLOATS = (*FLOAT_DTYPES, torch.int32, torch.bool)
_CONVERSIONS = {
    **dict.fromkeys(FLOAT_DTYPES, _FROM_FLOATS),
    **dict.fromkeys(INTEGER_DTYPES, (*FLOAT_DTYPES, *INTEGER_DTYPES)),
}


@register
class CopyRule(OpRule):
    """Clones and conversions. The dim order asked for counts only at a partition's boundary."""

    targets = (
        "aten.clone.default",
        "aten.alias_copy.default",
        "aten.alias.default",
        "aten.detach_copy.default",
        "aten.detach.default",
        "aten.lift_fresh_copy.default",
        "aten._to_copy.default",
        "dim_order_ops._clone_dim_order.default",
        "dim_order_ops._to_dim_order_copy.default",
    )
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses floats to int64, whose values may not fit the runtime's 32 bits."""
        if node.is_constant(0):
            return None
        source, target = node.dtype(0), node.out_dtype()
        if source is None or target not in _CONVERSIONS.get(source, ()):
            return unfit_dtype(target, f"{source} to {target} may lose digits")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """The same tensor, or one Copy op that converts; a constant is converted here."""
        data = node.constant(0)
        if data is not None:
            builder.alias(node.fx, builder.constant(data.to(node.out_dtype())))
        elif self._keeps_values(node):
            builder.alias(node.fx, builder.value(node.node(0)))
        else:
            builder.emit(ir.Copy(), [builder.value(node.node(0))], node.fx)

    @staticmethod
    def _keeps_values(node: NodeView) -> bool:
        """Whether it is the same numbers; those of half types are held in float32."""
        widens = node.dtype(0) in HALF_DTYPES and node.out_dtype() == torch.float32
        return widens or node.dtype(0) == node.out_dtype()


@register
class AssignRule(OpRule):
    """aten.copy: the second tensor with the sizes and the dtype of the first."""

    targets = ("aten.copy.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses what CopyRule refuses."""
        source, target = node.dtype(1), node.out_dtype()
        if source is None or target not in _CONVERSIONS.get(source, ()):
            return unfit_dtype(target, f"{source} to {target} may lose digits")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A Copy op where the dtype changes, then one Expand op."""
        source = builder.value(node.node(1))
        if node.dtype(1) != node.out_dtype():
            source = builder.temp(ir.Copy(), [source], node.sizes(1), node.out_dtype())
        builder.emit(ir.Expand(), [source], node.fx)
