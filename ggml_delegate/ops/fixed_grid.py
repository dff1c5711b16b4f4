"""Activations quantized with a scale and a zero point that were fixed by calibration.

PT2E writes a statically quantized layer as an op on floats between a dequantize and a quantize.
Both are computed here as they stand; see `ggml_delegate.fusion` for two that follow each other.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, node_value
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register

_DTYPES = (torch.int8, torch.uint8)


def check_fixed_grid(node: NodeView) -> Reason | None:
    """None for a quantize or dequantize whose scale and integers are what ggml computes with."""
    given = node.arguments()
    scale, zero_point = given["scale"], given["zero_point"]
    low, high, dtype = given["quant_min"], given["quant_max"], given["dtype"]
    if dtype not in _DTYPES:
        return Reason("quantization", f"of quantized activations, ggml takes int8, not {dtype}")
    numbers = all(isinstance(each, (int, float)) for each in (scale, zero_point, low, high))
    room = torch.iinfo(dtype)
    if (
        not numbers
        or not room.min <= low < high <= room.max
        or not room.min <= zero_point <= room.max
    ):
        return Reason("quantization", f"integers from {low} to {high}, with the zero {zero_point}")
    if not _is_scale(scale):
        return Reason("quantization", f"the scale is {scale}")
    return None


def _is_scale(scale: float) -> bool:
    smallest = torch.finfo(torch.float32).smallest_normal
    return math.isfinite(scale) and smallest < scale < 1 / smallest


def fixed_grid(node: NodeView) -> Any:
    """The Grid of a node that `check_fixed_grid` accepts; of equal ones, one object."""
    given = node.arguments()
    return _grid(*(given[name] for name in ("scale", "zero_point", "quant_min", "quant_max")))


@functools.lru_cache(maxsize=4096)
def _grid(scale: float, zero_point: int, low: int, high: int) -> Any:
    return ir.Grid(scale=float(scale), zeroPoint=int(zero_point), low=low, high=high)


def lower_dequantized(node: NodeView, builder: Builder) -> None:
    """One op, for all that dequantize the same integers alike."""
    sizes = list(node_value(node.fx).shape)
    integers = builder.value(node.node(0))
    op = ir.Dequantize(grid=fixed_grid(node))
    builder.alias(node.fx, builder.once(op, [integers], sizes))


@register
class QuantizeRule(OpRule):
    """The integers of an activation."""

    targets = ("quantized_decomposed.quantize_per_tensor.default",)
    inner_dtypes: ClassVar[tuple[torch.dtype, ...]] = _DTYPES

    def check(self, node: NodeView) -> Reason | None:
        return check_fixed_grid(node)

    def lower(self, node: NodeView, builder: Builder) -> None:
        op = ir.Quantize(grid=fixed_grid(node))
        builder.emit(op, [builder.value(node.node(0))], node.fx)
