"""What is dequantized: weights, whose integers layers take, and quantized activations."""

from __future__ import annotations

from typing import ClassVar

import torch

from ggml_delegate.builder import Builder
from ggml_delegate.node_view import DEQUANTIZE_HALF, NodeView, op_name
from ggml_delegate.ops.conv import ConvolutionRule
from ggml_delegate.ops.embedding import EmbeddingRule
from ggml_delegate.ops.fake_quantize import check_fake_quantized, lower_fake_quantized
from ggml_delegate.ops.fixed_grid import check_fixed_grid, lower_dequantized
from ggml_delegate.ops.linear import LinearRule
from ggml_delegate.ops.quantized_weight import DEQUANTIZES, NOT_TAKEN, is_stored_weight
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, check_view, register

# Which argument of a layer is its weight.
_WEIGHT_OF = {
    **dict.fromkeys((*LinearRule.targets, *ConvolutionRule.targets), 1),
    **dict.fromkeys(EmbeddingRule.targets, 0),
}


@register
class DequantizeRule(OpRule):
    """The dequantize of a constant weight or table that one layer reads, or of an activation."""

    targets = (*DEQUANTIZES, DEQUANTIZE_HALF)
    constant_dtypes: ClassVar[tuple[torch.dtype, ...]] = (
        torch.int8,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float64,
    )

    inner_dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.int8, torch.uint8, torch.int32)

    def check(self, node: NodeView) -> Reason | None:
        if not node.is_constant(0):
            return check_fixed_grid(node) if _is_fixed(node) else check_fake_quantized(node.fx)
        if not is_stored_weight(node.fx, node.constants):
            return Reason("quantization", NOT_TAKEN)
        users = list(node.fx.users)
        place = _WEIGHT_OF.get(op_name(users[0])) if len(users) == 1 else None
        if place is None:
            return Reason("quantization", "the dequantized weight is not one layer's alone")
        if users[0].args[place] is not node.fx:
            return Reason("quantization", "a dequantized constant that is no weight")
        return check_view(NodeView(users[0], node.constants))

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Of a weight, the layer reads the integers."""
        if node.is_constant(0):
            return
        if _is_fixed(node):
            lower_dequantized(node, builder)
        else:
            lower_fake_quantized(node, builder)


def _is_fixed(node: NodeView) -> bool:
    return op_name(node.fx) == "quantized_decomposed.dequantize_per_tensor.default"
