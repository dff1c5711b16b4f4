"""Rules for ops that take slices of a tensor by index."""

from __future__ import annotations

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ops.shape import in_range, inexpressible
from ggml_delegate.registry import OpRule, register


@register
class EmbeddingRule(OpRule):
    """embedding: rows of a table. An index outside of it is an error at run time, as in torch."""

    targets = ("aten.embedding.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> str | None:
        """Every table and all indices that torch takes."""
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op; padding_idx and scale_grad matter to gradients only."""
        inputs = [builder.value(node.node(0)), builder.value(node.node(1))]
        builder.emit(ir.Embedding(dim=0), inputs, node.fx)


@register
class IndexSelectRule(OpRule):
    """index_select along any dimension."""

    targets = ("aten.index_select.default",)
    integer_inputs = True

    def check(self, node: NodeView) -> str | None:
        """Refuses a number in place of a tensor."""
        if node.rank(0) == 0 or node.rank(2) != 1:
            return "selects from or by a number"
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Embedding op."""
        inputs = [builder.value(node.node(0)), builder.value(node.node(2))]
        dim = in_range(node.arg(1, "dim"), node.rank(0))
        builder.emit(ir.Embedding(dim=dim), inputs, node.fx)
