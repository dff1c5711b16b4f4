"""Rules for padding."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register

MAX_PAD = (1 << 32) - 1
# Integers up to here are exact in the float32 that the IR holds.
MAX_EXACT = 1 << 24


@register
class PadRule(OpRule):
    """constant_pad_nd: a constant before and after any dimension; what is negative cuts off."""

    targets = ("aten.constant_pad_nd.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses what is only known at run time."""
        pads = node.arg(1, "pad")
        if not all(isinstance(pad, int) for pad in pads):
            return Reason("run-time", "the padding is only known at run time")
        if any(abs(pad) > MAX_PAD for pad in pads):
            return Reason("unsupported", f"padding above {MAX_PAD}")
        value = self._value(node)
        if not isinstance(value, (bool, int, float)):
            return Reason("run-time", "the padding value is only known at run time")
        integers = not node.out_dtype().is_floating_point
        if integers and (value != int(value) or abs(value) > MAX_EXACT):
            return Reason("unsupported", f"pads integers with {value}")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Slice ops where something is cut off, then one Pad op."""
        rank = node.rank(0)
        before, after = [0] * rank, [0] * rank
        pads = node.arg(1, "pad")
        for i in range(len(pads) // 2):  # pairs, from the last dimension on
            before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
        source, sizes = builder.value(node.node(0)), node.sizes(0)
        for dim in range(rank):
            low, high = min(before[dim], 0), min(after[dim], 0)
            if low or high:
                sizes[dim] = sizes[dim] + low + high
                op = ir.Slice(dim=dim, start=builder.dim(-low))
                source = builder.temp(op, [source], sizes, node.out_dtype())
        op = ir.Pad(
            before=[max(pad, 0) for pad in before],
            after=[max(pad, 0) for pad in after],
            value=float(self._value(node)),
        )
        builder.emit(op, [source], node.fx)

    @staticmethod
    def _value(node: NodeView) -> float | bool:
        value: float = node.arg(2, "value", 0)
        return bool(value) if node.out_dtype() == torch.bool else value
