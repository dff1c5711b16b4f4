"""Rules for softmax."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.reasons import Reason
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

    def check(self, node: NodeView) -> Reason | None:
        """Refuses scalars and conversions on the way."""
        if node.rank(0) == 0:
            return Reason("unsupported", "softmax of a scalar")
        # half_to_float, or the result's dtype.
        if node.arg(2, "dtype") not in (None, False, torch.float32):
            return Reason("converts", "softmax that converts its input")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Softmax op."""
        op = ir.Softmax(
            dim=node.arg(1, "dim") % node.rank(0), log="log_softmax" in op_name(node.fx)
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)
