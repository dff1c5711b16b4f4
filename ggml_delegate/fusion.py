"""Joins IR nodes that the runtime computes in one pass over memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ggml_delegate import ir

# Ops whose kernels clamp their results while those are still in registers.
_WITH_ACTIVATION = ("Conv2d", "ConvTranspose2d", "Linear")


def _limits(op: Any) -> tuple[float, float] | None:
    """The limits of an op that is clamp(x, min, max), else None."""
    name = type(op).__name__.removesuffix("T")
    if name == "Clamp":
        return op.min, op.max
    if name == "Unary" and op.kind == ir.UnaryKind.Relu:
        return 0.0, math.inf
    return None


def fuse_activations(nodes: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    """Moves clamps, relu among them, into the convolution or product before them.

    Args:
        nodes: ir.Node objects in execution order; producers are changed in place.
        outputs: numbers of the program's output tensors.

    Returns:
        The nodes that remain.
    """
    uses = Counter(outputs)
    uses.update(number for node in nodes for number in node.inputs)
    producers: dict[int, Any] = {}
    remaining = []
    for node in nodes:
        limits = _limits(node.op)
        producer = producers.get(node.inputs[0]) if limits is not None else None
        if limits is None or producer is None or uses[node.inputs[0]] != 1:
            remaining.append(node)
            if ir.op_name(node) in _WITH_ACTIVATION and node.op.activation is None:
                producers[node.outputs[0]] = node
            continue
        producer.op.activation = ir.Activation(min=limits[0], max=limits[1])
        producer.outputs = list(node.outputs)
        producer.debugHandles = [*(producer.debugHandles or ()), *(node.debugHandles or ())]
    return remaining


def fuse_grids(nodes: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    """Makes one node of a dequantize and the quantize before it, in which no integers are stored.

    Arguments and result as of `fuse_activations`.
    """
    quantizes = {node.outputs[0]: node for node in nodes if ir.op_name(node) == "Quantize"}
    for node in nodes:
        before = quantizes.get(node.inputs[0]) if ir.op_name(node) == "Dequantize" else None
        if before is not None and _same_grid(before.op.grid, node.op.grid):
            node.op = ir.RoundToGrid(grid=node.op.grid)
            node.opType = ir.OPS["RoundToGrid"]
            node.inputs = list(before.inputs)
            node.debugHandles = [*(before.debugHandles or ()), *(node.debugHandles or ())]
    used = {*outputs, *(number for node in nodes for number in node.inputs)}
    return [node for node in nodes if node.outputs[0] in used or node.outputs[0] not in quantizes]


def _same_grid(one: Any, other: Any) -> bool:
    return bool(vars(one) == vars(other))
