"""Rules for activation functions."""

from __future__ import annotations

import math
from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.elementwise import UnaryRule
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register
from ggml_delegate.scalars import float32, is_number

_UNARY = {
    "aten.relu.default": ir.UnaryKind.Relu,
    "aten.sigmoid.default": ir.UnaryKind.Sigmoid,
    "aten.tanh.default": ir.UnaryKind.Tanh,
    "aten.silu.default": ir.UnaryKind.Silu,
    "aten.hardsigmoid.default": ir.UnaryKind.HardSigmoid,
    "aten.hardswish.default": ir.UnaryKind.HardSwish,
    "aten.mish.default": ir.UnaryKind.Mish,
    "aten.log_sigmoid.default": ir.UnaryKind.LogSigmoid,
}

# (position, name, default) of the lower and the upper bound.
_BOUNDS: dict[str, tuple[tuple[int, str, Any] | float, tuple[int, str, Any] | float]] = {
    "aten.clamp.default": ((1, "min", None), (2, "max", None)),
    "aten.clamp_min.default": ((1, "min", None), math.inf),
    "aten.clamp_max.default": (-math.inf, (1, "max", None)),
    "aten.hardtanh.default": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
    "aten.relu6.default": (0.0, 6.0),
}

_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


@register
class UnaryActivationRule(UnaryRule):
    """Activations without parameters."""

    kinds = _UNARY
    targets = tuple(kinds)
    preserve = (
        "aten.silu.default",
        "aten.hardsigmoid.default",
        "aten.hardswish.default",
        "aten.mish.default",
        "aten.log_sigmoid.default",
    )


@register
class ClampRule(OpRule):
    """clamp, also one-sided, hardtanh and relu6."""

    targets = tuple(_BOUNDS)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses bounds that are NaN or only known at run time."""
        bounds = _bounds(node)
        if not all(is_number(bound) for bound in bounds):
            return Reason("run-time", "a bound is only known at run time")
        if any(math.isnan(bound) for bound in bounds):
            return Reason("unsupported", "a bound is NaN")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Clamp op."""
        low, high = (float32(bound) for bound in _bounds(node))
        builder.emit(ir.Clamp(min=low, max=high), [builder.value(node.node(0))], node.fx)


@register
class GeluRule(OpRule):
    """aten.gelu, exact or in its tanh form."""

    targets = ("aten.gelu.default",)
    _KINDS = {"none": ir.UnaryKind.GeluErf, "tanh": ir.UnaryKind.GeluTanh}  # noqa: RUF012

    def check(self, node: NodeView) -> Reason | None:
        """Refuses forms that torch does not have today."""
        form = node.arg(1, "approximate", "none")
        return None if form in self._KINDS else Reason("unsupported", f"gelu in the form {form!r}")

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Unary op."""
        kind = self._KINDS[node.arg(1, "approximate", "none")]
        builder.emit(ir.Unary(kind=kind), [builder.value(node.node(0))], node.fx)


class _NumbersRule(OpRule):
    """An op of one tensor and numbers."""

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers that are only known at run time."""
        if not all(is_number(number) for number in self.numbers(node)):
            return Reason("run-time", "a parameter is only known at run time")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One op."""
        numbers = [float32(number) for number in self.numbers(node)]
        builder.emit(self.make(*numbers), [builder.value(node.node(0))], node.fx)

    def numbers(self, node: NodeView) -> list[Any]:
        """The op's numbers, in the order of make()'s arguments."""
        raise NotImplementedError

    def make(self, *numbers: float) -> Any:
        """The IR op."""
        raise NotImplementedError


@register
class LeakyReluRule(_NumbersRule):
    """aten.leaky_relu."""

    targets = ("aten.leaky_relu.default",)

    def numbers(self, node: NodeView) -> list[Any]:
        """The slope below 0."""
        return [node.arg(1, "negative_slope", 0.01)]

    def make(self, *numbers: float) -> Any:
        """LeakyRelu."""
        return ir.LeakyRelu(negativeSlope=numbers[0])


@register
class EluRule(_NumbersRule):
    """aten.elu, and selu and celu, which are elu with certain numbers."""

    targets = ("aten.elu.default", "aten.selu.default", "aten.celu.default")
    preserve = ("aten.celu.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses celu with alpha 0 as torch does."""
        if op_name(node.fx) == "aten.celu.default" and node.arg(1, "alpha", 1.0) == 0:
            return Reason("unsupported", "celu with alpha 0")
        return super().check(node)

    def numbers(self, node: NodeView) -> list[Any]:
        """Alpha, scale and input_scale."""
        if op_name(node.fx) == "aten.selu.default":
            return [_SELU_ALPHA, _SELU_SCALE, 1.0]
        if op_name(node.fx) == "aten.celu.default":
            alpha = node.arg(1, "alpha", 1.0)
            return [alpha, 1.0, 1.0 / alpha if is_number(alpha) else alpha]
        return [node.arg(1, "alpha", 1), node.arg(2, "scale", 1), node.arg(3, "input_scale", 1)]

    def make(self, *numbers: float) -> Any:
        """Elu."""
        return ir.Elu(alpha=numbers[0], scale=numbers[1], inputScale=numbers[2])


@register
class SoftplusRule(_NumbersRule):
    """aten.softplus."""

    targets = ("aten.softplus.default",)
    preserve = ("aten.softplus.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses beta 0, by which torch divides."""
        if node.arg(1, "beta", 1) == 0:
            return Reason("unsupported", "softplus with beta 0")
        return super().check(node)

    def numbers(self, node: NodeView) -> list[Any]:
        """Beta and threshold."""
        return [node.arg(1, "beta", 1), node.arg(2, "threshold", 20)]

    def make(self, *numbers: float) -> Any:
        """Softplus."""
        return ir.Softplus(beta=numbers[0], threshold=numbers[1])


@register
class PreluRule(OpRule):
    """aten.prelu: one slope for all, or one per channel."""

    targets = ("aten.prelu.default",)
    preserve = ("aten.prelu.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses slopes that are computed."""
        return None if node.is_constant(1) else Reason("computed", "slopes that are computed")

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Binary, with the slopes along dimension 1."""
        slopes = node.constant(1)
        assert slopes is not None
        slopes = slopes.to(torch.float32).reshape(-1)
        if slopes.numel() > 1:
            slopes = slopes.reshape([-1] + [1] * (node.rank(0) - 2))
        elif node.rank(0) == 0:
            slopes = slopes.reshape(())
        inputs = [builder.value(node.node(0)), builder.constant(slopes)]
        builder.emit(ir.Binary(kind=ir.BinaryKind.Prelu), inputs, node.fx)


def _bounds(node: NodeView) -> tuple[Any, Any]:
    """Lower and upper bound; a missing one is infinite."""
    low, high = _BOUNDS[op_name(node.fx)]
    if isinstance(low, tuple):
        low = node.arg(*low)
    if isinstance(high, tuple):
        high = node.arg(*high)
    return (-math.inf if low is None else low, math.inf if high is None else high)
