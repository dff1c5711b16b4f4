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
from ggml_delegate.node_view import Constants, NodeView, node_value, op_name, stored_half
from ggml_delegate.ops.panels import to_float28, to_panels, to_super_blocks

OF_GROUPS = "orchestrator.dequantize_groups.default"
_TORCHAO = "torchao.dequantize_affine.default"
DEQUANTIZES = (
    "quantized_decomposed.dequantize_per_tensor.default",
    "quantized_decomposed.dequantize_per_channel.default",
    "quantized_decomposed.dequantize_per_channel_group.default",
    _TORCHAO,
    OF_GROUPS,
)
NOT_TAKEN = (
    "of what is dequantized, ggml takes weights of int8 or int4 with scales by row or group, and "
    "floats of float32"
)
_SCALES = (torch.float32, torch.float64)
_HALVES = (torch.float16, torch.bfloat16)
# The ops that multiply integers with scales of half types in float32, not in the half type.
_TAKE_HALVES = (_TORCHAO, OF_GROUPS)
_INT8 = torch.iinfo(torch.int8)
_INT4 = (-8, 7)
_UINT4 = (0, 15)


@dataclass(frozen=True)
class QuantizedWeight:
    """A constant of integers, and how it is expanded.

    An element is (integer - zero point) * scale, or integer * scale + minimum. The constant's first
    dimension is n, the others are k: [n, k] of a layer, [n, c, h, w] of a convolution.
    scale, zero_point: a constant with an element per row and group, or a number for all; no zero
    point is 0. minimum: such a constant, or None. group: elements of a row that share them. bits:
    that the integers are said to have, 8 or 4.
    """

    integers: Node
    scale: Node | float
    zero_point: Node | int | None
    group: int
    bits: int
    minimum: Node | None = None


@dataclass(frozen=True)
class PackedWeight:
    """What the IR has of a quantized weight, in panels; see the schema.

    offsets: zero points of int8 or minimums of floats; None where they are all 0. bits: that the
    integers have.
    """

    bits: int
    integers: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor | None


def quantized_weight(node: Node | None, constants: Constants) -> QuantizedWeight | None:
    """Return what a node expands, by metadata alone; None if that is no weight for products."""
    if node is None or op_name(node) not in DEQUANTIZES:
        return None
    given = NodeView(node, constants).arguments()
    if op_name(node) == OF_GROUPS:
        return _weight_of_groups(given, node_value(node), constants)
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
        or not _is_read_exactly(scale, op_name(node) in _TAKE_HALVES)
    ):
        return None
    bits = 4 if low >= _INT4[0] and high <= _INT4[1] else 8
    return QuantizedWeight(integers, scale, zero_point, group, bits)


def is_stored_weight(node: Node, constants: Constants) -> bool:
    """Whether a node makes floats of a weight that products take as it is stored."""
    is_half = stored_half(node, constants) is not None
    return is_half or quantized_weight(node, constants) is not None


def _weight_of_groups(
    given: Mapping[str, Any], value: Any, constants: Constants
) -> QuantizedWeight | None:
    """As `quantized_weight`, of arguments of `orchestrator::dequantize_groups`."""
    integers, scales, minimums = given["q"], given["scales"], given["mins"]
    bits, group = given["bits"], given["group"]
    if integers not in constants or value.dtype != torch.float32:
        return None
    # Bytes that have no sign are integers of int8 if they have 4 bits.
    fits = node_value(integers).dtype == torch.int8 or bits == 4
    n, k = value.shape
    tables = [table for table in (scales, minimums) if table is not None]
    if not fits or not all(
        _has(table, n * (k // group), constants) and _is_read_exactly(table, True)
        for table in tables
    ):
        return None
    return QuantizedWeight(integers, scales, None, group, bits, minimums)


def _is_read_exactly(value: object, halves: bool) -> bool:
    """Whether eager PyTorch multiplies and adds these numbers in float32."""
    if not isinstance(value, Node):
        return True
    dtype = node_value(value).dtype
    return dtype in _SCALES or (halves and dtype in _HALVES)


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
    """Lay a weight out as the runtime reads it; None where zero points are no integers of int8.

    as_rows: makes rows [n, k] of the integers, if they have more dimensions.
    """
    integers = as_rows(constants.tensor(weight.integers))
    n, k = integers.shape
    sizes = (n, -(-k // weight.group))
    scales = _filled(weight.scale, sizes, torch.float32, constants)
    offsets = _zero_points(weight, sizes, constants)
    if offsets is None or integers.max() > _INT8.max:
        return None
    minimums = None
    if weight.minimum is not None:
        minimums = _stored(_filled(weight.minimum, sizes, torch.float32, constants))
    # Eager PyTorch expands integers beyond their limits as they are.
    low, high = _INT4 if weight.minimum is None else _UINT4
    bits = 4 if weight.bits == 4 and integers.min() >= low and integers.max() <= high else 8
    integers = integers.to(torch.int8)
    return PackedWeight(
        bits,
        to_panels(_two_to_a_byte(integers) if bits == 4 else integers),
        _stored(scales, positive=True),
        to_panels(offsets) if offsets.any() else minimums,
    )


def _zero_points(
    weight: QuantizedWeight, sizes: tuple[int, int], constants: Constants
) -> torch.Tensor | None:
    """The zero points in int8; None where they are not integers of int8."""
    given = _filled(weight.zero_point or 0, sizes, torch.float64, constants)
    zeros = given.clamp(_INT8.min, _INT8.max).round().nan_to_num().to(torch.int8)
    return zeros if torch.equal(zeros.to(torch.float64), given) else None


def _stored(numbers: torch.Tensor, positive: bool = False) -> torch.Tensor:
    """Floats in panels, in the fewest bits that lose nothing: 10, 16, 28 or 32.

    positive: of most that are not the others, so that 28 are tried.
    """
    stored = narrowest(numbers)
    if stored.dtype != torch.float32:
        return to_panels(stored)
    packed = to_super_blocks(stored)
    if packed is None and positive:
        packed = to_float28(stored)
    return to_panels(stored) if packed is None else packed


def narrowest(numbers: torch.Tensor) -> torch.Tensor:
    """Floats in the first of float16 and bfloat16 that has them all, else as they are."""
    for dtype in _HALVES:
        half = numbers.to(dtype)
        if torch.equal(half.to(numbers.dtype), numbers):
            return half
    return numbers


def integer_operands(
    node: NodeView,
    weight: QuantizedWeight,
    builder: Builder,
    as_rows: Callable[[torch.Tensor], torch.Tensor] = _unchanged,
) -> tuple[list[int | None], Any]:
    """The tensors of a weight's integers, scales and offsets, and the op's Integers.

    Raises:
        LoweringError: its integers or zero points leave int8.
    """
    parts = packed(weight, node.constants, as_rows)
    if parts is None:
        raise LoweringError(
            f"the weight of {node.fx.name} has integers or zero points that are not in int8"
        )
    offsets = None if parts.offsets is None else builder.weight(parts.offsets)
    operands = [builder.weight(parts.integers), builder.weight(parts.scales), offsets]
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
