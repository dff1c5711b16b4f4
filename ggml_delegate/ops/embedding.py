"""Rules for ops that take slices of a tensor by index."""

from __future__ import annotations

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import Constants, NodeView, op_name, stored_half
from ggml_delegate.ops.linear import is_weight_of
from ggml_delegate.ops.panels import to_panels
from ggml_delegate.ops.quantized_weight import (
    DEQUANTIZES,
    NOT_TAKEN,
    integer_operands,
    quantized_weight,
)
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register


@register
class EmbeddingRule(OpRule):
    """embedding: rows of a table. An index outside of it is an error at run time, as in torch."""

    targets = ("aten.embedding.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """All indices that torch takes, and tables of floats, or of integers that are weights."""
        table = node.node(0)
        if table is not None and _is_dequantized(table, node.constants):
            if quantized_weight(table, node.constants) is None:
                return Reason("quantization", NOT_TAKEN)
            if _has_two_bits(NodeView(table, node.constants)):
                return Reason("quantization", "a table of 2 bits, which ggml would store in 4")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op; padding_idx and scale_grad matter to gradients only.

        A table that is a linear layer's weight too, as of models with tied embeddings, is stored
        once, as the layer wants it. Tables that floats are made of in the graph always are stored
        so: the layer may be in another partition.
        """
        table, weight, indices = node.node(0), node.weight(0), builder.value(node.node(1))
        assert table is not None
        quantized = quantized_weight(table, node.constants)
        if quantized is not None:
            (integers, *numbers), how = integer_operands(node, quantized, builder)
            op = ir.Embedding(dim=0, panelRows=node.sizes(0)[0], integers=how)
            builder.emit(op, [integers, indices, *numbers], node.fx)
            return
        shared = stored_half(table, node.constants) is not None or any(
            is_weight_of(table, user) for user in table.users
        )
        if weight is None:
            builder.emit(ir.Embedding(dim=0), [builder.value(table), indices], node.fx)
        elif shared:
            op = ir.Embedding(dim=0, panelRows=weight.shape[0])
            builder.emit(op, [builder.weight(to_panels(weight)), indices], node.fx)
        else:
            builder.emit(ir.Embedding(dim=0), [builder.weight(weight), indices], node.fx)


def _is_dequantized(table: torch.fx.Node, constants: Constants) -> bool:
    """Whether a table is what a constant of integers stands for."""
    return op_name(table) in DEQUANTIZES and table.args[0] in constants


def _has_two_bits(table: NodeView) -> bool:
    """Whether ExecuTorch's kernels read a table of 2 bits for an element, and 4 in a byte."""
    given = table.arguments()
    return (given.get("quant_min"), given.get("quant_max")) == (-2, 1) and (
        table.sizes(0)[-1] % 4 == 0
    )


@register
class IndexSelectRule(OpRule):
    """index_select along any dimension."""

    targets = ("aten.index_select.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses a number in place of a tensor."""
        if node.rank(0) == 0 or node.rank(2) != 1:
            return Reason("unsupported", "selects from or by a number")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op."""
        table = node.constant(0)
        source = builder.value(node.node(0)) if table is None else builder.weight(table)
        inputs = [source, builder.value(node.node(2))]
        dim = in_range(node.arg(1, "dim"), node.rank(0))
        builder.emit(ir.Embedding(dim=dim), inputs, node.fx)
