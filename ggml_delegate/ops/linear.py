"""Matrix products: with constant weights (Linear) and of two activations (MatMul)."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.panels import to_panels
from ggml_delegate.ops.quantized_weight import integer_operands, quantized_weight
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register


def _bias_row(bias: torch.Tensor, n: int) -> torch.Tensor | None:
    """A constant addend as one row [n], or None when its rows differ."""
    if bias.numel() == 1:
        return bias.reshape(1).expand(n)
    return bias.reshape(n) if bias.numel() == n and bias.shape[-1] == n else None


def is_weight_of(table: torch.fx.Node, user: torch.fx.Node) -> bool:
    """Whether `user` is a linear layer of the delegate, and `table` its weight, not its input."""
    if op_name(user) not in LinearRule.targets:
        return False
    return user.args[1] is table and user.args[0] is not table


@register
class LinearRule(OpRule):
    """aten.linear."""

    targets = ("aten.linear.default",)
    preserve = ("aten.linear.default",)

    def check(self, node: NodeView) -> Reason | None:
        if node.rank(0) < 1 or node.rank(1) != 2:
            return Reason(
                "rank", f"linear of rank {node.rank(0)} with a weight of rank {node.rank(1)}"
            )
        has_bias = node.node(2, "bias") is not None
        if node.is_weight(1) or quantized_weight(node.node(1), node.constants) is not None:
            if has_bias and self._bias(node) is None:
                return Reason(
                    "computed",
                    "the bias is computed, ggml takes a constant beside a constant weight",
                )
            return None
        if node.rank(0) < 2:
            return Reason("computed", "linear of a vector with a computed weight")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        x = builder.value(node.node(0))
        weight = node.weight(1)
        quantized = quantized_weight(node.node(1), node.constants)
        if weight is not None or quantized is not None:
            bias = self._bias(node)
            row = None if bias is None else builder.constant(bias)
            if quantized is not None:
                operands, integers = integer_operands(node, quantized, builder)
                inputs = [x, operands[0], row, *operands[1:]]
                builder.emit(ir.Linear(integers=integers), inputs, node.fx)
            elif weight is not None:
                builder.emit(ir.Linear(), [x, builder.weight(to_panels(weight)), row], node.fx)
            return
        n, k = node.sizes(1)
        # Permuting is free: the product reads either layout.
        columns = builder.temp(
            ir.Permute(dims=[1, 0]), [builder.value(node.node(1))], [k, n], torch.float32
        )
        bias_node = node.node(2, "bias")
        addend = None if bias_node is None else builder.value(bias_node)
        builder.emit(ir.MatMul(), [x, columns, addend], node.fx)

    def _bias(self, node: NodeView) -> torch.Tensor | None:
        index = 2 if len(node.fx.args) > 2 else None
        if index is not None:
            return node.constant(index)
        return None


@register
class MatMulRule(OpRule):
    """aten.mm, aten.bmm, and aten.matmul where it is not decomposed."""

    targets = ("aten.mm.default", "aten.bmm.default", "aten.matmul.default")

    def check(self, node: NodeView) -> Reason | None:
        for index in (0, 1):
            if node.rank(index) < 2:
                return Reason("rank", f"a product with a tensor of rank {node.rank(index)}")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        x = builder.value(node.node(0))
        right = node.constant(1)
        if right is not None and right.dim() == 2:
            builder.emit(ir.Linear(), [x, builder.weight(to_panels(right.t()))], node.fx)
            return
        builder.emit(ir.MatMul(), [x, builder.value(node.node(1))], node.fx)


@register
class AddmmRule(OpRule):
    """aten.addmm: beta * addend + alpha * (a @ b)."""

    targets = ("aten.addmm.default",)

    def check(self, node: NodeView) -> Reason | None:
        for name in ("alpha", "beta"):
            if not isinstance(self._factor(node, name), (int, float)):
                return Reason("dynamic", f"{name} is dynamic")
        return None

    def _factor(self, node: NodeView, name: str) -> float:
        """alpha or beta: keyword-only in the schema."""
        return node.arg(len(node.fx.args), name, 1)  # type: ignore[no-any-return]

    def lower(self, node: NodeView, builder: Builder) -> None:
        alpha, beta = (float(self._factor(node, name)) for name in ("alpha", "beta"))
        a = builder.value(node.node(1))
        addend, right = node.constant(0), node.constant(2)
        n = int(right.shape[1]) if right is not None else 0
        row = None if addend is None or right is None else _bias_row(addend, n)
        if right is not None and (row is not None or beta == 0):
            # torch ignores the addend, NaN and all, where beta is 0.
            bias = None if beta == 0 or row is None else builder.constant(beta * row.float())
            scaled = right if alpha == 1 else alpha * right.float()
            weight = builder.weight(to_panels(scaled.t()))
            builder.emit(ir.Linear(), [a, weight, bias], node.fx)
            return
        b = builder.value(node.node(2))
        added = None if beta == 0 else builder.value(node.node(0))
        builder.emit(ir.MatMul(alpha=alpha, beta=beta), [a, b, added], node.fx)
