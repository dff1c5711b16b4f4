"""Convolutions over one and two dimensions, and their transposes."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ops.panels import to_panels
from ggml_delegate.ops.quantized_weight import integer_operands, quantized_weight
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register

# Of kernel sizes, strides, dilations and paddings.
MAX_ATTRIBUTE = int(ir.Limit.Attribute)


class _Convolution:
    """The arguments of aten.convolution, with one-dimensional ones widened to two."""

    def __init__(self, node: NodeView) -> None:
        self.rank = node.rank(0)
        self.stride = self._pair(node.arg(3, "stride"), 1)
        self.padding = self._pair(node.arg(4, "padding"), 0)
        self.dilation = self._pair(node.arg(5, "dilation"), 1)
        self.transposed = bool(node.arg(6, "transposed"))
        self.groups = node.arg(8, "groups")
        self.weight_sizes = [int(size) for size in node.sizes(1)]
        self.in_channels = node.sizes(0)[1] if self.rank > 1 else 0

    def _pair(self, values: list[int], fill: int) -> list[int]:
        """(h, w) of an argument given per dimension, or once for all."""
        dims = max(self.rank - 2, 1)
        values = list(values) * (dims if len(values) == 1 else 1)
        return [fill] * (2 - len(values)) + values

    @property
    def kernel(self) -> list[int]:
        return self._pair(self.weight_sizes[2:], 1)

    @property
    def is_depthwise(self) -> bool:
        return bool(self.groups == self.in_channels and self.groups > 1)

    @property
    def algorithm(self) -> int:
        """How the runtime computes a convolution; the one place that chooses.

        Product: a matrix product of the patches under the windows, gathered block by block into
        the cache (a 1x1 convolution reads its input in place), with the weight in panels. At 70 to
        90 % of the machine's arithmetic peak for dense and 1x1 convolutions alike, it leaves a
        direct form nothing to win.
        Depthwise: each channel meets one filter, so there is no product to form; a kernel of its
        own keeps a few neighbouring pixels of two vectors of channels in registers.
        """
        if self.is_depthwise:
            return int(ir.ConvAlgorithm.Depthwise)
        return int(ir.ConvAlgorithm.Product)

    def attributes(self) -> dict[str, int]:
        """What Conv2d and ConvTranspose2d have in common, by IR name."""
        pairs = {"kernel": self.kernel, "stride": self.stride, "dilation": self.dilation}
        return {f"{name}{side}": pair[i] for name, pair in pairs.items() for i, side in _SIDES}


_SIDES = ((0, "H"), (1, "W"))


def _tap_weights(weight: torch.Tensor) -> torch.Tensor:
    """[a, b, (h,) w] -> [a, b, h, w]."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


def _product_rows(weight: torch.Tensor) -> torch.Tensor:
    """[out, in, (h,) w] -> [out, h * w * in], as the patches under the windows lie."""
    return _tap_weights(weight).permute(0, 2, 3, 1).flatten(1)


@register
class ConvolutionRule(OpRule):
    """aten.convolution."""

    targets = ("aten.convolution.default",)

    def check(self, node: NodeView) -> Reason | None:
        if node.rank(0) not in (3, 4):
            return Reason(
                "volume", f"a convolution over {node.rank(0) - 2} dimensions, ggml has 1 and 2"
            )
        quantized = quantized_weight(node.node(1), node.constants)
        if not node.is_weight(1) and quantized is None:
            return Reason("computed", "the weight is computed, ggml takes a constant")
        if node.node(2) is not None and not node.is_constant(2):
            return Reason("computed", "the bias is computed, ggml takes a constant")
        conv = _Convolution(node)
        if not isinstance(conv.in_channels, int):
            return Reason("dynamic", "the number of channels is dynamic")
        numbers = [*conv.stride, *conv.padding, *conv.dilation, *conv.kernel]
        if any(not 0 <= number <= MAX_ATTRIBUTE for number in numbers):
            return Reason(
                "unsupported",
                f"a kernel size, stride, padding or dilation outside of 0 to {MAX_ATTRIBUTE}",
            )
        if conv.transposed and conv.groups != 1:
            return Reason("groups", "a transposed convolution in groups")
        if conv.groups not in (1, conv.in_channels):
            return Reason(
                "elsewhere",
                "grouped convolution with 1 < groups < in_channels: left to other backends"
                f" (groups {conv.groups}, in_channels {conv.in_channels})",
            )
        if quantized is not None and (conv.transposed or conv.is_depthwise):
            return Reason("quantization", "of depthwise and transposed weights, ggml takes floats")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        conv = _Convolution(node)
        weight, bias = node.weight(1), node.constant(2)
        quantized = quantized_weight(node.node(1), node.constants)
        x = builder.value(node.node(0))
        row = None if bias is None else builder.constant(bias)
        op = self._op(conv)
        if quantized is not None:
            inputs, op.integers = integer_operands(node, quantized, builder, _product_rows)
            builder.emit(op, [x, inputs[0], row, *inputs[1:]], node.fx)
            return
        assert weight is not None
        laid_out = builder.weight(self._lay_out(conv, _tap_weights(weight)))
        builder.emit(op, [x, laid_out, row], node.fx)

    def _lay_out(self, conv: _Convolution, weight: torch.Tensor) -> torch.Tensor:
        """A weight [out, in / groups, h, w], or [in, out, h, w] if transposed, as stored."""
        if conv.transposed:
            return to_panels(weight.permute(2, 3, 1, 0).flatten(0, 2))
        if conv.is_depthwise:
            return weight.squeeze(1).permute(1, 2, 0).to(torch.float32)
        return to_panels(_product_rows(weight))

    def _op(self, conv: _Convolution) -> Any:
        if conv.transposed:
            return ir.ConvTranspose2d(
                **conv.attributes(), padH=conv.padding[0], padW=conv.padding[1]
            )
        return ir.Conv2d(
            **conv.attributes(),
            algorithm=conv.algorithm,
            padTop=conv.padding[0],
            padBottom=conv.padding[0],
            padLeft=conv.padding[1],
            padRight=conv.padding[1],
        )
