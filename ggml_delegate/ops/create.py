"""Rules for tensors made from nothing: full, arange, zeros_like and the like."""

from __future__ import annotations

import math
from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.ranges import INT32
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import FLOAT_DTYPES, INTEGER_DTYPES, OpRule, register
from ggml_delegate.scalars import float32, is_number
from ggml_delegate.symbols import is_expressible, lower_bound, upper_bound

_DTYPES = (*FLOAT_DTYPES, *INTEGER_DTYPES)
# A dynamic arange is a part of a constant one of at most this length.
MAX_ARANGE = 1 << 16

# Position of the value to fill with, or the value.
_FILLS: dict[str, Any] = {
    "aten.full.default": ("arg", 1),
    "aten.full_like.default": ("arg", 1),
    "aten.scalar_tensor.default": ("arg", 0),
    "aten.zeros.default": 0,
    "aten.zeros_like.default": 0,
    "aten.ones.default": 1,
    "aten.ones_like.default": 1,
}


@register
class FullRule(OpRule):
    """A number repeated."""

    targets = tuple(_FILLS)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers only known at run time, and dtypes that ggml lacks."""
        value = self._value(node)
        if not is_number(value):
            return Reason("run-time", "the number to fill with is only known at run time")
        if node.out_dtype() not in _DTYPES:
            return unfit_dtype(node.out_dtype(), f"a result of dtype {node.out_dtype()}")
        if not node.out_dtype().is_floating_point and not (
            math.isfinite(value) and INT32[0] <= value <= INT32[1]
        ):
            return Reason("range", f"the number {value} does not fit int32")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Expand op of a constant."""
        dtype, value = node.out_dtype(), self._value(node)
        number = float32(value) if dtype == torch.float32 else value
        constant = builder.constant(torch.tensor(number).to(dtype))
        builder.emit(ir.Expand(), [constant], node.fx)

    @staticmethod
    def _value(node: NodeView) -> Any:
        fill = _FILLS[op_name(node.fx)]
        if isinstance(fill, tuple):
            return node.arg(fill[1], "fill_value" if fill[1] else "s")
        return fill


@register
class ArangeRule(OpRule):
    """arange; one whose end is a size is a part of a constant."""

    targets = ("aten.arange.start_step", "aten.arange.default", "aten.arange.start")

    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses starts and steps only known at run time, and ends beyond MAX_ARANGE."""
        start, end, step = self._bounds(node)
        if node.out_dtype() not in _DTYPES:
            return unfit_dtype(node.out_dtype(), f"a result of dtype {node.out_dtype()}")
        if not is_number(start) or not is_number(step):
            return Reason("run-time", "the start or step of arange is only known at run time")
        if is_number(end):
            within = all(INT32[0] <= bound <= INT32[1] for bound in (start, end))
            return None if within else Reason("range", "arange beyond int32")
        if not isinstance(end, torch.SymInt) or not is_expressible(end):
            return Reason("run-time", "the end of arange is no size")
        if (start, step) != (0, 1) or lower_bound(end) < 0:
            return Reason("unsupported", "arange up to a size, but not from 0 in steps of 1")
        if upper_bound(end) > MAX_ARANGE:
            return Reason("unsupported", f"arange up to a size that may exceed {MAX_ARANGE}")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A constant, or a Slice of one."""
        start, end, step = self._bounds(node)
        dtype = node.out_dtype()
        if is_number(end):
            values = torch.arange(start, end, step, dtype=dtype)
            builder.alias(node.fx, builder.constant(values))
            return
        longest = builder.constant(torch.arange(upper_bound(end), dtype=dtype))
        builder.emit(ir.Slice(dim=0, start=builder.dim(0)), [longest], node.fx)

    @staticmethod
    def _bounds(node: NodeView) -> tuple[Any, Any, Any]:
        if op_name(node.fx) == "aten.arange.default":
            return 0, node.arg(0, "end"), 1
        return node.arg(0, "start"), node.arg(1, "end"), node.arg(2, "step", 1)
