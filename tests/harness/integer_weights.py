"""Layers whose weights are integers, in each way that a graph expands them to floats."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torchao  # noqa: F401  (torchao's ops)
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (quantized_decomposed's ops)

from orchestrator.frontend.group_quantization import dequantize_groups

_QD = torch.ops.quantized_decomposed
Zeros = str  # "none", "zero" or "some"


class Layer(nn.Module):
    """A linear layer of one scheme; integers of all values that its bits have.

    group: elements that share a scale, or 0 for a row. zeros: whether there are zero points, and
    others than 0.
    """

    def __init__(
        self,
        scheme: str,
        n: int,
        k: int,
        *,
        bits: int = 8,
        group: int = 0,
        zeros: Zeros = "none",
        bias: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(n * 1000 + k)
        self.scheme, self.n, self.k, self.relu = scheme, n, k, relu
        self.group = group or k
        self.low, self.high = -(1 << bits - 1), (1 << bits - 1) - 1
        groups = -(-k // self.group)
        draw = functools.partial(torch.randint, self.low, self.high + 1, generator=generator)
        self.register_buffer("q", draw((n, k)).to(torch.int8))
        self.register_buffer("scale", torch.rand(n, groups, generator=generator) / 100 + 1e-3)
        zero = draw((n, groups)) if zeros == "some" else torch.zeros(n, groups, dtype=torch.int64)
        self.register_buffer("zero", None if zeros == "none" else zero)
        if scheme == "channel":
            self.scale, self.zero = self.scale[:, 0], zero[:, 0]
        if scheme == "minimums":
            self.scale = self.scale.half()
            self.register_buffer("minimum", self.scale * -3)
            if bits == 4:
                self.q = (self.q - self.low).to(torch.uint8)
        self.bias = nn.Parameter(torch.randn(n, generator=generator)) if bias else None

    def weight(self) -> Tensor:
        """The weight as the graph expands it."""
        low, high, int8 = self.low, self.high, torch.int8
        if self.scheme == "tensor":
            return _QD.dequantize_per_tensor(self.q, 0.01, 3, low, high, int8)
        if self.scheme == "channel":
            return _QD.dequantize_per_channel(self.q, self.scale, self.zero, 0, low, high, int8)
        if self.scheme == "minimums":
            bits = 4 if high < 8 else 8
            return dequantize_groups(
                self.q, self.scale, self.minimum, bits, self.group, torch.float32
            )
        if self.scheme == "group":
            return _QD.dequantize_per_channel_group(
                self.q, self.scale, self.zero, low, high, int8, self.group, torch.float32
            )
        return torch.ops.torchao.dequantize_affine(
            self.q, [1, self.group], self.scale, self.zero, int8, low, high
        )

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(x, self.weight(), self.bias)
        return y.relu() if self.relu else y


class Convolution(nn.Module):
    """A convolution [out, in / groups, *kernel]; scheme: how its weight is expanded."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        scheme: str = "channel",
        *,
        bits: int = 8,
        transposed: bool = False,
        relu: bool = False,
        **how: Any,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(sum(sizes))
        self.scheme, self.transposed, self.relu, self.how = scheme, transposed, relu, how
        self.low, self.high = -(1 << bits - 1), (1 << bits - 1) - 1
        q = torch.randint(self.low, self.high + 1, sizes, generator=generator)
        self.register_buffer("q", q.to(torch.int8))
        scale = torch.rand(sizes[0], generator=generator) / 100 + 1e-3
        ones = [1] * (len(sizes) - 1 if scheme == "affine" else 0)
        self.register_buffer("scale", scale.reshape(-1, *ones))
        zero = torch.randint(-9, 9, (sizes[0],), generator=generator)
        self.register_buffer("zero", zero if "zero" in scheme else torch.zeros_like(zero))
        out = sizes[1] if transposed else sizes[0]
        self.bias = nn.Parameter(torch.randn(out, generator=generator))
        self.op = {3: torch.conv1d, 4: torch.conv2d}[len(sizes)]
        if transposed:
            self.op = torch.conv_transpose2d

    def weight(self) -> Tensor:
        limits = (self.low, self.high, torch.int8)
        if self.scheme == "tensor":
            return _QD.dequantize_per_tensor(self.q, 0.01, 0, *limits)
        if self.scheme == "affine":
            return torch.ops.torchao.dequantize_affine(
                self.q, [1, *self.q.shape[1:]], self.scale, None, torch.int8, self.low, self.high
            )
        return _QD.dequantize_per_channel(self.q, self.scale, self.zero, 0, *limits)

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(x, self.weight(), self.bias, **self.how)
        return y.relu() if self.relu else y


SCHEMES: dict[str, Callable[..., Layer]] = {
    "per tensor": functools.partial(Layer, "tensor"),
    "per channel": functools.partial(Layer, "channel", zeros="zero", bias=True),
    "per channel, zero points": functools.partial(Layer, "channel", zeros="some"),
    "groups of 32": functools.partial(Layer, "group", group=32, zeros="zero", relu=True),
    "groups of 32, zero points": functools.partial(Layer, "group", group=32, zeros="some"),
    "groups of 32, minimums": functools.partial(Layer, "minimums", group=32, bias=True),
    "torchao, rows": functools.partial(Layer, "affine", bias=True),
    "torchao, groups of 16": functools.partial(Layer, "affine", group=16, zeros="some", relu=True),
}


class Several(nn.Module):
    """A layer for each input."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *xs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, xs, strict=True)]
