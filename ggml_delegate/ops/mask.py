"""Rules for masks: comparisons, logic, and selection by a mask."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.operand import check_operands, common_dtype, operand
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import FLOAT_DTYPES, INTEGER_DTYPES, OpRule, register

_COMPARISONS = {
    f"aten.{name}.{overload}": kind
    for name, kind in (
        ("eq", ir.CompareKind.Eq),
        ("ne", ir.CompareKind.Ne),
        ("lt", ir.CompareKind.Lt),
        ("le", ir.CompareKind.Le),
        ("gt", ir.CompareKind.Gt),
        ("ge", ir.CompareKind.Ge),
    )
    for overload in ("Tensor", "Scalar")
}
_LOGIC = {
    "aten.logical_and.default": ir.IntegerKind.And,
    "aten.logical_or.default": ir.IntegerKind.Or,
    "aten.logical_xor.default": ir.IntegerKind.Xor,
    "aten.bitwise_and.Tensor": ir.IntegerKind.And,
    "aten.bitwise_and.Scalar": ir.IntegerKind.And,
    "aten.bitwise_or.Tensor": ir.IntegerKind.Or,
    "aten.bitwise_or.Scalar": ir.IntegerKind.Or,
    "aten.bitwise_xor.Tensor": ir.IntegerKind.Xor,
    "aten.bitwise_xor.Scalar": ir.IntegerKind.Xor,
}


@register
class CompareRule(OpRule):
    """eq, ne, lt, le, gt, ge of tensors and numbers."""

    targets = tuple(_COMPARISONS)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers that are only known at run time or do not fit int32."""
        return check_operands(node, (0, 1)) or inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Compare op."""
        dtype = common_dtype(node, (0, 1))
        operands = [operand(node, builder, index, dtype, rounded=True) for index in (0, 1)]
        builder.emit(ir.Compare(kind=_COMPARISONS[op_name(node.fx)]), operands, node.fx)


@register
class LogicRule(OpRule):
    """Logical and bitwise and, or, xor."""

    targets = tuple(_LOGIC)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses numbers that are only known at run time or do not fit int32."""
        return check_operands(node, (0, 1)) or inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Integer op; what is no mask becomes one first where the op is logical."""
        name = op_name(node.fx)
        dtype = torch.bool if "logical" in name else common_dtype(node, (0, 1))
        operands = [operand(node, builder, index, dtype) for index in (0, 1)]
        builder.emit(ir.Integer(kind=_LOGIC[name]), operands, node.fx)


@register
class NotRule(OpRule):
    """logical_not, and bitwise_not of masks and integers."""

    targets = ("aten.logical_not.default", "aten.bitwise_not.default")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Every tensor that the registry admits."""
        return check_operands(node, (0, 0))

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A comparison with 0, or Integer with all bits set."""
        dtype = common_dtype(node, (0, 0))
        x = operand(node, builder, 0, dtype)
        if "logical" in op_name(node.fx) or dtype == torch.bool:
            zero = torch.zeros((), dtype=torch.float32 if dtype.is_floating_point else torch.int32)
            op, other = ir.Compare(kind=ir.CompareKind.Eq), zero
        else:
            op, other = ir.Integer(kind=ir.IntegerKind.Xor), torch.tensor(-1, dtype=torch.int32)
        builder.emit(op, [x, builder.constant(other)], node.fx)


@register
class IsNanRule(OpRule):
    """aten.isnan: what is not equal to itself."""

    targets = ("aten.isnan.default",)
    integer_inputs = True  # the result is a mask

    def check(self, node: NodeView) -> Reason | None:
        """Every tensor of floats."""
        return None if node.dtype(0) in FLOAT_DTYPES else Reason("integers", "isnan of integers")

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Compare op."""
        x = builder.value(node.node(0))
        builder.emit(ir.Compare(kind=ir.CompareKind.Ne), [x, x], node.fx)


@register
class WhereRule(OpRule):
    """where and masked_fill."""

    targets = ("aten.where.self", "aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses conditions that are no masks, and results of dtypes that ggml lacks."""
        condition, a, b = self._order(node)
        if node.dtype(condition) != torch.bool:
            return unfit_dtype(
                node.dtype(condition), f"a condition of dtype {node.dtype(condition)}"
            )
        dtype = node.out_dtype()
        if dtype not in (*FLOAT_DTYPES, *INTEGER_DTYPES):
            return unfit_dtype(dtype, f"a result of dtype {dtype}")
        return check_operands(node, (a, b)) or inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Where op."""
        condition, a, b = self._order(node)
        operands = [operand(node, builder, condition, torch.bool)]
        operands += [operand(node, builder, index, node.out_dtype()) for index in (a, b)]
        builder.emit(ir.Where(), operands, node.fx)

    @staticmethod
    def _order(node: NodeView) -> tuple[int, int, int]:
        """Positions of the condition, the value where it holds, and the value elsewhere."""
        return (1, 2, 0) if "masked_fill" in op_name(node.fx) else (0, 1, 2)
