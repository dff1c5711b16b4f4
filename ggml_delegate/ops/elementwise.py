"""Rules for arithmetic: element by element, with broadcasting and scalars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ggml_delegate import ir
from ggml_delegate.aten_ops import Trait, traits
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.operand import check_operands, operand
from ggml_delegate.ranges import argument_range, combine, is_int32
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import HALF_DTYPES, OpRule, register
from ggml_delegate.scalars import float32, is_normal, is_number, scalar_argument

_UNARY = {
    "aten.neg.default": ir.UnaryKind.Neg,
    "aten.abs.default": ir.UnaryKind.Abs,
    "aten.sqrt.default": ir.UnaryKind.Sqrt,
    "aten.rsqrt.default": ir.UnaryKind.Rsqrt,
    "aten.exp.default": ir.UnaryKind.Exp,
    "aten.expm1.default": ir.UnaryKind.Expm1,
    "aten.log.default": ir.UnaryKind.Log,
    "aten.log1p.default": ir.UnaryKind.Log1p,
    "aten.reciprocal.default": ir.UnaryKind.Reciprocal,
    "aten.square.default": ir.UnaryKind.Square,
    "aten.sin.default": ir.UnaryKind.Sin,
    "aten.cos.default": ir.UnaryKind.Cos,
    "aten.floor.default": ir.UnaryKind.Floor,
    "aten.ceil.default": ir.UnaryKind.Ceil,
    "aten.round.default": ir.UnaryKind.Round,
    "aten.trunc.default": ir.UnaryKind.Trunc,
    "aten.erf.default": ir.UnaryKind.Erf,
}

_BINARY = {
    "aten.add.Tensor": ir.BinaryKind.Add,
    "aten.add.Scalar": ir.BinaryKind.Add,
    "aten.sub.Tensor": ir.BinaryKind.Sub,
    "aten.sub.Scalar": ir.BinaryKind.Sub,
    "aten.rsub.Tensor": ir.BinaryKind.Sub,
    "aten.rsub.Scalar": ir.BinaryKind.Sub,
    "aten.mul.Tensor": ir.BinaryKind.Mul,
    "aten.mul.Scalar": ir.BinaryKind.Mul,
    "aten.div.Tensor": ir.BinaryKind.Div,
    "aten.div.Scalar": ir.BinaryKind.Div,
    "aten.div.Tensor_mode": ir.BinaryKind.Div,
    "aten.minimum.default": ir.BinaryKind.Minimum,
    "aten.maximum.default": ir.BinaryKind.Maximum,
}


_INTEGER = {
    ir.BinaryKind.Add: ir.IntegerKind.Add,
    ir.BinaryKind.Sub: ir.IntegerKind.Sub,
    ir.BinaryKind.Mul: ir.IntegerKind.Mul,
    ir.BinaryKind.Minimum: ir.IntegerKind.Minimum,
    ir.BinaryKind.Maximum: ir.IntegerKind.Maximum,
}


@register
class UnaryRule(OpRule):
    """Functions of one element, without parameters."""

    kinds: ClassVar[Mapping[str, Any]] = _UNARY
    targets = tuple(kinds)

    def check(self, node: NodeView) -> Reason | None:
        """Every tensor that the registry admits."""
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Unary op."""
        kind = self.kinds[op_name(node.fx)]
        builder.emit(ir.Unary(kind=kind), [builder.value(node.node(0))], node.fx)


@register
class BinaryRule(OpRule):
    """add, sub, rsub, mul, div, minimum, maximum of tensors and scalars."""

    targets = tuple(_BINARY)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses rounded division, scalars known at run time only, and integers beyond int32."""
        mode = node.fx.kwargs.get("rounding_mode")
        if mode is not None:
            return Reason("unsupported", f"division rounded by {mode!r}")
        alpha = _alpha(node)
        if not is_number(alpha):
            return Reason("run-time", "alpha is only known at run time")
        reason = check_operands(node, (0, 1))
        if reason is None and not node.out_dtype().is_floating_point:
            reason = _check_integers(node)
        return reason

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One op: with a fixed scalar operand it is a function of one element."""
        first, second = (1, 0) if "rsub" in op_name(node.fx) else (0, 1)
        kind = _BINARY[op_name(node.fx)]
        if not node.out_dtype().is_floating_point:
            dtype = node.out_dtype()
            inputs = [operand(node, builder, index, dtype) for index in (first, second)]
            builder.emit(ir.Integer(kind=_INTEGER[kind]), inputs, node.fx)
            return
        alpha = _number(node, _alpha(node))
        op, tensor = None, first
        if (scalar := _foldable(node, second, first)) is not None:
            op = _with_right_scalar(kind, scalar, alpha)
        elif (scalar := _foldable(node, first, second)) is not None:
            op, tensor = _with_left_scalar(kind, scalar, alpha), second
        if op is not None:
            builder.emit(op, [operand(node, builder, tensor, torch.float32)], node.fx)
            return
        dtype, rounded = node.out_dtype(), _rounds_numbers(node)
        operands = [
            operand(node, builder, index, dtype, rounded=rounded) for index in (first, second)
        ]
        builder.emit(ir.Binary(kind=kind, alpha=float32(alpha)), operands, node.fx)


@register
class PowRule(OpRule):
    """aten.pow with a fixed exponent."""

    targets = ("aten.pow.Tensor_Scalar",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses an exponent that is only known at run time."""
        if not is_number(node.arg(1, "exponent")):
            return Reason("run-time", "the exponent is only known at run time")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Pow op."""
        exponent = _number(node, node.arg(1, "exponent"))
        builder.emit(ir.Pow(exponent=exponent), [builder.value(node.node(0))], node.fx)


def _check_integers(node: NodeView) -> Reason | None:
    """Why an op of integers cannot be done in 32 bits, or None."""
    kind = _BINARY[op_name(node.fx)]
    if kind not in _INTEGER or node.out_dtype() == torch.bool or _alpha(node) != 1:
        return Reason(
            "dtype",
            f"arithmetic of {node.out_dtype()}, with alpha {_alpha(node)}".replace("torch.", ""),
        )
    if node.out_dtype() == torch.int32 or kind in (ir.BinaryKind.Minimum, ir.BinaryKind.Maximum):
        return None
    first, second = (1, 0) if "rsub" in op_name(node.fx) else (0, 1)
    ranges = [argument_range(node.fx.args[index], node.constants) for index in (first, second)]
    if ranges[0] is None or ranges[1] is None:
        return Reason("run-time", "an integer operand is only known at run time")
    operator = {ir.BinaryKind.Add: "add", ir.BinaryKind.Sub: "sub"}.get(kind, "mul")
    if not is_int32(combine(operator, ranges[0], ranges[1])):
        return Reason("range", "the result may exceed int32")
    return None


def _alpha(node: NodeView) -> Any:
    """The factor of add, sub and rsub, which .Scalar overloads may take by position."""
    if _BINARY[op_name(node.fx)] not in (ir.BinaryKind.Add, ir.BinaryKind.Sub):
        return 1.0
    return node.arg(2, "alpha", 1)


def _foldable(node: NodeView, scalar: int, tensor: int) -> float | None:
    """The value of operand `scalar` when the result has the sizes of operand `tensor`."""
    if node.value(tensor) is None or node.rank(scalar) > node.rank(tensor):
        return None
    value = scalar_argument(node, scalar)
    return None if value is None or math.isnan(value) else _number(node, value)


def _rounds_numbers(node: NodeView) -> bool:
    return bool(traits(op_name(node.fx)) & Trait.ROUNDS_NUMBERS)


def _number(node: NodeView, value: float) -> float:
    """A number as the op takes it."""
    dtype = node.out_dtype()
    rounds = dtype in HALF_DTYPES and _rounds_numbers(node)
    return float(torch.tensor(float(value), dtype=dtype).item()) if rounds else float32(value)


def _with_right_scalar(kind: int, scalar: float, alpha: float) -> Any:
    """The op for `x kind scalar`; None when only Binary is exact."""
    if kind == ir.BinaryKind.Add:
        return ir.Affine(scale=1.0, bias=float32(alpha * scalar))
    if kind == ir.BinaryKind.Sub:
        return ir.Affine(scale=1.0, bias=float32(-alpha * scalar))
    if kind == ir.BinaryKind.Mul:
        return ir.Affine(scale=scalar, bias=0.0)
    if kind == ir.BinaryKind.Div:
        usable = is_normal(scalar) and is_normal(1.0 / scalar)
        return ir.Affine(scale=float32(1.0 / scalar), bias=0.0) if usable else None
    return _bound(kind, scalar)


def _with_left_scalar(kind: int, scalar: float, alpha: float) -> Any:
    """The op for `scalar kind x`; None when only Binary is exact."""
    if kind == ir.BinaryKind.Add:
        return ir.Affine(scale=float32(alpha), bias=scalar)
    if kind == ir.BinaryKind.Sub:
        return ir.Affine(scale=float32(-alpha), bias=scalar)
    if kind == ir.BinaryKind.Mul:
        return ir.Affine(scale=scalar, bias=0.0)
    if kind == ir.BinaryKind.Div:
        return ir.Unary(kind=ir.UnaryKind.Reciprocal) if scalar == 1.0 else None
    return _bound(kind, scalar)


def _bound(kind: int, scalar: float) -> Any:
    if kind == ir.BinaryKind.Minimum:
        return ir.Clamp(min=-math.inf, max=scalar)
    return ir.Clamp(min=scalar, max=math.inf)
