"""Activations that are quantized and dequantized, by their own range or a fixed one."""

from __future__ import annotations

import torch
import torchao  # noqa: F401  (torchao's ops)
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (quantized_decomposed's ops)

PT2E = torch.ops.quantized_decomposed
TORCHAO = torch.ops.torchao
INT8 = torch.int8
Grid = tuple[float, int, int, int, torch.dtype]
"""A scale, a zero point, the least and the largest integer, and their dtype."""


def quantize(x: Tensor, grid: Grid) -> Tensor:
    """The integers of a scale that was fixed before."""
    q: Tensor = PT2E.quantize_per_tensor(x, *grid)
    return q


def dequantize(q: Tensor, grid: Grid) -> Tensor:
    """What such integers stand for."""
    x: Tensor = PT2E.dequantize_per_tensor(q, *grid)
    return x


class PerTensor(nn.Module):
    """As PT2E writes it."""

    def __init__(self, low: int = -128, high: int = 127, eps: float = 2**-12) -> None:
        super().__init__()
        self.low, self.high, self.eps = low, high, eps

    def forward(self, x: Tensor) -> Tensor:
        limits = (self.low, self.high)
        scale, zero = PT2E.choose_qparams.tensor(x, *limits, self.eps, INT8)
        q = PT2E.quantize_per_tensor.tensor(x, scale, zero, *limits, INT8)
        return PT2E.dequantize_per_tensor.tensor(q, scale, zero, *limits, INT8)


class PerRow(nn.Module):
    """As torchao writes it."""

    def __init__(
        self,
        low: int | None = None,
        high: int | None = None,
        eps: float | None = None,
        mapping: str = "ASYMMETRIC",
        block: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.low, self.high, self.eps, self.mapping, self.block = low, high, eps, mapping, block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block or [1] * (x.dim() - 1) + [x.shape[-1]]
        limits = (self.low, self.high)
        scale, zero = TORCHAO.choose_qparams_affine(
            x, self.mapping, block, INT8, *limits, self.eps, torch.float32, INT8
        )
        q = TORCHAO.quantize_affine(x, block, scale, zero, INT8, *limits)
        return TORCHAO.dequantize_affine(q, block, scale, zero, INT8, *limits)


WAYS: dict[str, type[nn.Module]] = {"per tensor": PerTensor, "per row": PerRow}
