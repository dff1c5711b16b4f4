"""Rules for ops that take slices of a tensor by index."""

from __future__ import annotations

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ops.linear import is_weight_of
from ggml_delegate.ops.panels import to_panels
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register


@register
class EmbeddingRule(OpRule):
    """embedding: rows of a table. An index outside of it is an error at run time, as in torch."""

    targets = ("aten.embedding.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Every table and all indices that torch takes."""
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op; padding_idx and scale_grad matter to gradients only.

        A table that is a linear layer's weight too, as of models with tied embeddings, is stored
        once, as the layer wants it.
        """
        table, weight, indices = node.node(0), node.constant(0), builder.value(node.node(1))
        assert table is not None
        shared = any(is_weight_of(table, user) for user in table.users)
        if weight is None:
            builder.emit(ir.Embedding(dim=0), [builder.value(table), indices], node.fx)
        elif shared:
            op = ir.Embedding(dim=0, panelRows=weight.shape[0])
            builder.emit(op, [builder.weight(to_panels(weight)), indices], node.fx)
        else:
            builder.emit(ir.Embedding(dim=0), [builder.weight(weight), indices], node.fx)


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
