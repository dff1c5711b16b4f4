"""Rules for softmax and for sums along one dimension."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.registry import OpRule, register


@register
class SoftmaxRule(OpRule):
    """softmax and log_softmax along any dimension."""

    targets = (
        "aten._softmax.default",
        "aten._log_softmax.default",
        "aten.softmax.int",
        "aten.log_softmax.int",
    )

    def check(self, node: NodeView) -> str | None:
        """Refuses scalars and conversions on the way."""
        if node.rank(0) == 0:
            return "softmax of a scalar"
        # half_to_float, or the result's dtype.
        if node.arg(2, "dtype") not in (None, False, torch.float32):
            return "softmax that converts its input"
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Softmax op."""
        op = ir.Softmax(
            dim=node.arg(1, "dim") % node.rank(0), log="log_softmax" in op_name(node.fx)
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)


@register
class ReduceRule(OpRule):
    """mean and sum along one dimension."""

    targets = (
        "aten.mean.dim",
        "aten.mean.default",
        "aten.sum.dim_IntList",
        "aten.sum.default",
    )

    def check(self, node: NodeView) -> str | None:
        """Refuses several dimensions and conversions on the way."""
        name = "mean" if "mean" in op_name(node.fx) else "sum"
        if node.rank(0) == 0:
            return f"{name} of a scalar"
        if node.fx.kwargs.get("dtype") not in (None, torch.float32):
            return f"{name} that converts its input"
        if _dim(node) is None:
            return f"{name} over several dims: left to other backends"
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Reduce op."""
        mean = "mean" in op_name(node.fx)
        dim = _dim(node)
        assert dim is not None
        op = ir.Reduce(
            kind=ir.ReduceKind.Mean if mean else ir.ReduceKind.Sum,
            dim=dim,
            keepdim=len(node.out_sizes()) == node.rank(0),
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)


def _dim(node: NodeView) -> int | None:
    """The one dimension that is reduced, or None when there are several."""
    dims: Any = None
    if not op_name(node.fx).endswith(".default"):
        dims = node.arg(1, "dim")
    if isinstance(dims, int):
        dims = [dims]
    if not dims:  # None and [] both mean all
        dims = range(node.rank(0))
    return int(dims[0]) % node.rank(0) if len(dims) == 1 else None
