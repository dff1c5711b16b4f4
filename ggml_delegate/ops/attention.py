"""Rules for attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, Size, node_value
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import FLOAT_DTYPES, OpRule, register
from ggml_delegate.scalars import float32

MAX_RANK = 4
# Arguments that may be given by name only.
_SCALE, _ENABLE_GQA = 6, 7


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are the same number or the same expression."""
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return bool(a.node.expr == b.node.expr)


def _scale(node: NodeView) -> Any:
    """The factor of the scores; None or symbolic when it is only known at run time."""
    scale, depth = node.arg(_SCALE, "scale", None), node.sizes(0)[-1]
    if scale is None and isinstance(depth, int):
        return 1 / math.sqrt(depth)
    return scale


@register
class AttentionRule(OpRule):
    """scaled_dot_product_attention."""

    targets = ("aten.scaled_dot_product_attention.default",)
    preserve = ("aten.scaled_dot_product_attention.default",)
    integer_inputs = True  # bool masks

    def check(self, node: NodeView) -> Reason | None:
        """Refuses dropout, ranks above 4 and batch sizes that torch would broadcast."""
        if len({node.dtype(i) for i in range(3)}) > 1:
            return Reason("dtype", "queries, keys and values differ in their dtypes")
        rank = node.rank(0)
        if not 2 <= rank <= MAX_RANK or node.rank(1) != rank or node.rank(2) != rank:
            return Reason("rank", f"attention over rank {rank}, {node.rank(1)} and {node.rank(2)}")
        if node.arg(4, "dropout_p", 0.0) != 0.0:
            return Reason("training", "attention with dropout")
        if not isinstance(_scale(node), (int, float)):
            return Reason("run-time", "the scale of attention is only known at run time")
        return (
            self._check_batches(node)
            or self._check_mask(node)
            or inexpressible([*node.sizes(0), *node.sizes(1), *node.out_sizes()])
        )

    @staticmethod
    def _check_batches(node: NodeView) -> Reason | None:
        q, k, v = node.sizes(0), node.sizes(1), node.sizes(2)
        grouped = bool(node.arg(_ENABLE_GQA, "enable_gqa", False)) and len(q) >= 3
        shared = len(q) - (3 if grouped else 2)
        same = [
            *map(same_size, q[:shared], k[:shared]),
            *map(same_size, k[:-2], v[:-2]),
            same_size(k[-2], v[-2]),
            same_size(q[-1], k[-1]),
        ]
        if not all(same):
            return Reason("unsupported", "attention over sizes that differ or are repeated")
        if grouped and not same_size(q[-3], k[-3]):
            heads, groups = q[-3], k[-3]
            if not isinstance(heads, int) or not isinstance(groups, int) or heads % groups:
                return Reason("unsupported", f"{heads} heads in {groups} groups")
        return None

    @staticmethod
    def _check_mask(node: NodeView) -> Reason | None:
        mask = node_value(node.node(3, "attn_mask"))
        if mask is None:
            return None
        if mask.dtype not in (*FLOAT_DTYPES, torch.bool):
            return unfit_dtype(mask.dtype, f"the mask has dtype {mask.dtype}")
        scores = [*node.sizes(0)[:-1], node.sizes(1)[-2]]
        sizes = list(mask.shape)
        if len(sizes) > len(scores) or not all(
            same_size(a, b) or same_size(a, 1)
            for a, b in zip(reversed(sizes), reversed(scores), strict=False)
        ):
            return Reason("unsupported", "the mask does not fit queries and keys")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Attention op."""
        scale = float32(_scale(node))
        op = ir.Attention(scale=scale, causal=bool(node.arg(5, "is_causal", False)))
        inputs = [node.node(0), node.node(1), node.node(2)]
        mask = node.node(3, "attn_mask")
        if mask is not None:
            inputs.append(mask)
        builder.emit(op, [builder.value(source) for source in inputs], node.fx)
