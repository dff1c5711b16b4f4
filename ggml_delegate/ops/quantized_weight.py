"""Weights of integers, which the graph expands to floats before a product reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ggml_delegate import ir
from ggml_delegate.builder import Builder, LoweringError
from ggml_delegate.node_view import Constants, NodeView, node_value, op_name
from ggml_delegate.ops.panels import to_panels

DEQUANTIZES = (
    "quantized_decomposed.dequantize_per_tensor.default",
    "quantized_decomposed.dequantize_per_channel.default",
    "quantized_decomposed.dequantize_per_channel_group.default",
    "torchao.dequantize_affine.default",
)
_SCALES = (torch.float32, torch.float64)
_INT8 = torch.iinfo(torch.int8)
_INT4 = (-8, 7)


@dataclass(frozen=True)
class QuantizedWeight:
    """A constant of int8, and how it is expanded: (integer - zero point) * scale.

    Its first dimension is n, the others are k: [n, k] of a layer, [n, c, h, w] of a convolution.
    scale, zero_point: a constant with an element per row and group, or a number for all; no zero
    point is 0. group: elements of a row that share them. bits: that the integers are said to have,
    8 or 4.
    """

    integers: Node
    scale: Node | float
    zero_point: Node | int | None
    group: int
    bits: int


@dataclass(frozen=True)
class PackedWeight:
    """What the IR has of a quantized weight, in panels; see the schema.

    zero_points: None where they are all 0. bits: that the integers have.
    """

    bits: int
    integers: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None


def quantized_weight(node: Node | None, constants: Constants) -> QuantizedWeight | None:
    """Return what a node expands, by metadata alone; None if that is no weight for products."""
    if node is None or op_name(node) not in DEQUANTIZES:
        return None
    given = NodeView(node, constants).arguments()
    integers, value = given["input"], node_value(node)
    if integers not in constants or value.dim() < 2 or value.dtype != torch.float32:
        return None
    n, k = value.shape[0], math.prod(value.shape[1:])
    group = _group(given, value.shape)
    low, high = given["quant_min"], given["quant_max"]
    scale: Any = given.get("scale", given.get("scales"))
    zero_point: Any = given.get("zero_point", given.get("zero_points"))
    if (
        node_value(integers).dtype != torch.int8
        or group is None
        or not isinstance(low, int)
        or not isinstance(high, int)
        or low < _INT8.min
        or high > _INT8.max
        or not all(_has(each, n * -(-k // group), constants) for each in (scale, zero_point))
        or (isinstance(scale, Node) and node_value(scale).dtype not in _SCALES)
    ):
        return None
    bits = 4 if low >= _INT4[0] and high <= _INT4[1] else 8
    return QuantizedWeight(integers, scale, zero_point, group, bits)


def _group(given: Mapping[str, Any], sizes: torch.Size) -> int | None:
    """How many elements of a row share a scale; None where rows do not have their own."""
    whole = math.prod(sizes[1:])
    if "block_size" in given:
        rows, *block = given["block_size"]
        if rows != 1 or not all(isinstance(size, int) for size in block):
            return None
        size = math.prod(block)
        return size if len(block) == 1 or size == whole else None
    if "group_size" in given:
        size = given["group_size"]
        return size if isinstance(size, int) and len(sizes) == 2 else None
    return whole if given.get("axis", 0) == 0 else None


def _has(value: object, count: int, constants: Constants) -> bool:
    """Whether a value is nothing, a number, or a constant of so many elements."""
    if value is None or isinstance(value, (int, float)):
        return True
    return value in constants and node_value(value).numel() == count


def _unchanged(integers: torch.Tensor) -> torch.Tensor:
    return integers


def packed(
    weight: QuantizedWeight,
    constants: Constants,
    as_rows: Callable[[torch.Tensor], torch.Tensor] = _unchanged,
) -> PackedWeight | None:
    """Lay a weight out as the runtime reads it; None where zero points leave int8.

    as_rows: makes rows [n, k] of the integers, if they have more dimensions.
    """
    integers = as_rows(constants.tensor(weight.integers))
    n, k = integers.shape
    sizes = (n, -(-k // weight.group))
    scales = _filled(weight.scale, sizes, torch.float32, constants)
    zeros = _filled(weight.zero_point or 0, sizes, torch.int64, constants)
    if zeros.min() < _INT8.min or zeros.max() > _INT8.max:
        return None
    # Eager PyTorch expands integers beyond their limits as they are.
    fits = integers.min() >= _INT4[0] and integers.max() <= _INT4[1]
    bits = 4 if weight.bits == 4 and fits else 8
    return PackedWeight(
        bits,
        to_panels(_two_to_a_byte(integers) if bits == 4 else integers),
        to_panels(scales),
        to_panels(zeros.to(torch.int8)) if zeros.any() else None,
    )


def integer_operands(
    node: NodeView,
    weight: QuantizedWeight,
    builder: Builder,
    as_rows: Callable[[torch.Tensor], torch.Tensor] = _unchanged,
) -> tuple[list[int | None], Any]:
    """The tensors of a weight's integers, scales and zero points, and the op's Integers.

    Raises:
        LoweringError: its zero points leave int8.
    """
    parts = packed(weight, node.constants, as_rows)
    if parts is None:
        raise LoweringError(f"the weight of {node.fx.name} has zero points beyond int8")
    zeros = None if parts.zero_points is None else builder.constant(parts.zero_points)
    operands = [builder.constant(parts.integers), builder.constant(parts.scales), zeros]
    return operands, ir.Integers(bits=parts.bits, group=weight.group)


def _filled(
    value: Node | float, sizes: tuple[int, int], dtype: torch.dtype, constants: Constants
) -> torch.Tensor:
    if isinstance(value, Node):
        return constants.tensor(value).reshape(sizes).to(dtype)
    return torch.full(sizes, value, dtype=dtype)


def _two_to_a_byte(integers: torch.Tensor) -> torch.Tensor:
    """[n, k] of 4 bits -> [n, ceil(k / 2)], elements at even places in the low halves."""
    even = torch.nn.functional.pad(integers, (0, integers.shape[1] % 2))
    return (even[:, ::2] & 0xF) | (even[:, 1::2] << 4)
