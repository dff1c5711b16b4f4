"""Numbers among a node's arguments: Python numbers, and tensors with one fixed element."""

from __future__ import annotations

import struct
from typing import Any

import torch

from ggml_delegate.node_view import NodeView, op_name

# Ops through which a constant scalar keeps its value; the edge dialect converts integers so.
_COPIES = frozenset(
    {
        "dim_order_ops._to_dim_order_copy.default",
        "dim_order_ops._clone_dim_order.default",
        "aten._to_copy.default",
        "aten.clone.default",
        "aten.lift_fresh_copy.default",
    }
)


def float32(value: float) -> float:
    """The float32 nearest to a number; one beyond its range becomes infinite, as in torch."""
    return float(torch.tensor(value, dtype=torch.float64).to(torch.float32))


def is_number(value: Any) -> bool:
    """Whether an argument is a number that is known at lowering time."""
    return isinstance(value, (int, float))


def is_normal(value: float) -> bool:
    """Whether a number is a float32 other than 0, infinities, NaN and denormals."""
    bits = int.from_bytes(struct.pack("<f", float32(value)), "little")
    return 0 < (bits >> 23 & 0xFF) < 0xFF


def scalar_argument(node: NodeView, index: int) -> float | None:
    """The value of an argument that is a number or a constant tensor of one element, else None."""
    value = node.arg(index, "")
    if is_number(value):
        return float(value)
    constant = _constant_through_copies(node, index)
    if constant is None or constant.numel() != 1 or constant.is_complex():
        return None
    return float(constant.reshape(()).item())


def _constant_through_copies(node: NodeView, index: int) -> torch.Tensor | None:
    constant = node.constant(index)
    if constant is not None:
        return constant
    producer = node.producer(index)
    if producer is None or op_name(producer.fx) not in _COPIES:
        return None
    if not producer.out_dtype().is_floating_point:
        return None
    return _constant_through_copies(producer, 0)
