"""Rules for concatenation."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, node_value
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import MAX_RANK, OpRule, register


@register
class ConcatRule(OpRule):
    """cat along any dimension, of any number of tensors."""

    targets = ("aten.cat.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses tensors of different dtypes or ranks, which torch converts or leaves out."""
        for source in node.arg(0, "tensors"):
            value = node_value(source)
            if value.dtype != node.out_dtype():
                return unfit_dtype(node.out_dtype(), f"{value.dtype} becomes {node.out_dtype()}")
            if value.dim() != node.out().dim():
                return Reason("empty", "a tensor without elements is left out")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Concat op."""
        sources = [builder.value(source) for source in node.arg(0, "tensors")]
        dim = in_range(node.arg(1, "dim", 0), node.out().dim())
        builder.emit(ir.Concat(dim=dim), sources, node.fx)


@register
class StackRule(OpRule):
    """stack: concatenation along a new dimension."""

    targets = ("aten.stack.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses tensors of different dtypes, which torch converts."""
        for source in node.arg(0, "tensors"):
            dtype = node_value(source).dtype
            if dtype != node.out_dtype():
                return unfit_dtype(node.out_dtype(), f"{dtype} becomes {node.out_dtype()}")
        assert node.out().dim() <= MAX_RANK
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A Reshape of each tensor, then one Concat op."""
        dim = in_range(node.arg(1, "dim", 0), node.out().dim())
        sizes = node.out_sizes()
        sizes[dim] = 1
        parts = [
            builder.temp(ir.Reshape(), [builder.value(source)], sizes, node.out_dtype())
            for source in node.arg(0, "tensors")
        ]
        assert isinstance(node.out(), torch.Tensor)
        builder.emit(ir.Concat(dim=dim), parts, node.fx)
