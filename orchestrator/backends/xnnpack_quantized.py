"""Which quantized groups XNNPACK computes as the model says.

ExecuTorch's configs match by the shape of the graph; the rest shows when a group is serialized, as
a failed assertion, or not at all, as wrong numbers. What is said here was found with ExecuTorch
1.5.1: XNNPACK's integers have 8 bits and a sign, weights have no zero point, groups of a weight's
row have 4 bits and multiples of 32 elements, and dynamic activations are asymmetric.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.dim_orders.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import (
    Quantization,
    is_choose_qparams,
    is_dequantize,
    is_quantization,
    is_quantize,
    is_zero,
    quantization,
)
from orchestrator.graph.queries import op_name

_INT8 = (-128, 127)
_INT4 = (-8, 7)
_GROUP = 32
_LAYERS = {"aten.convolution.default", "aten.linear.default"}


def unfit_quantization(
    nodes: Sequence[Node], weights: Container[Node], ep: ExportedProgram
) -> str | None:
    """Say why XNNPACK would get a quantized group wrong, or fail to lower it.

    Args:
        nodes: the group.
        weights: nodes whose results are the same in every run.
        ep: the program, for the values of zero points.
    """
    for node in nodes:
        if (reason := _unfit_order(node)) is not None:
            return reason
    expanded = [node for node in nodes if is_dequantize(node) and node in weights]
    activations = [
        node for node in nodes if (is_quantize(node) or is_dequantize(node)) and node not in weights
    ]
    if expanded and not any(map(is_dequantize, activations)):
        # Its integers would be taken for floats.
        return f"XNNPACK takes no quantized weight ({expanded[0].name}) with float activations"
    for node in nodes:
        if (reason := _unfit_mixture(node, weights)) is not None:
            return reason
    for node in activations:
        if (reason := _unfit_activation(node)) is not None:
            return reason
    is_dynamic = any(map(is_choose_qparams, nodes))
    for node in nodes:
        if is_choose_qparams(node) and "SYMMETRIC" in node.args:
            return f"XNNPACK quantizes activations with a zero point, and {node.name} without"
    for node in expanded:
        if (reason := _unfit_weight(node, is_dynamic, ep)) is not None:
            return reason
    return None


def _unfit_order(node: Node) -> str | None:
    """Say where XNNPACK's passes would lose track of the order that an image is in."""
    around = (node, *node.all_input_nodes)
    if is_quantization(node):
        for value in (each.meta.get("val") for each in around):
            if isinstance(value, torch.Tensor) and tuple(value.dim_order()) == CHANNELS_LAST_ORDER:
                return f"XNNPACK quantizes contiguous images, {node.name} is about channels-last"
    is_conversion = op_name(node) == "dim_order_ops._to_dim_order_copy.default"
    if is_conversion and any(map(is_quantization, (*node.all_input_nodes, *node.users))):
        return f"XNNPACK cannot convert dim orders ({node.name}) next to what is quantized"
    return None


def _unfit_mixture(node: Node, weights: Container[Node]) -> str | None:
    """Say where a layer has quantized activations and a weight of floats, or a pad no layer after.

    PT2E leaves the weight so in the second use of one that two layers share. XNNPACK's passes
    quantize the result of a pad whose input is, which only a convolution goes on with.
    """
    if op_name(node) == "aten.constant_pad_nd.default" and is_dequantize(node.all_input_nodes[0]):
        other = next((each for each in node.users if op_name(each) not in _LAYERS), None)
        if other is not None:
            return f"XNNPACK pads what is quantized for layers, not for {other.name}"
    if op_name(node) not in _LAYERS or not is_dequantize(node.all_input_nodes[0]):
        return None
    weight = node.all_input_nodes[1]
    if weight not in weights or is_dequantize(weight) or node.all_input_nodes[0] in weights:
        return None
    return f"XNNPACK takes no weight of floats ({weight.name}) with quantized activations"


def _unfit_activation(node: Node) -> str | None:
    found = quantization(node)
    if found is None:
        return f"XNNPACK does not know how {node.name} quantizes"
    if found.dtype != torch.int8 or found.limits != _INT8:
        low, high = found.limits
        dtype = str(found.dtype).removeprefix("torch.")
        return (
            f"XNNPACK's activations are int8 of -128 to 127, those of {node.name} {dtype} of {low} "
            f"to {high}"
        )
    return None


def _unfit_weight(node: Node, is_dynamic: bool, ep: ExportedProgram) -> str | None:
    found = quantization(node)
    if found is None:
        return f"XNNPACK does not know how {node.name} quantizes"
    if found.dtype == torch.int32:  # a bias
        return None
    if found.dtype != torch.int8:
        dtype = str(found.dtype).removeprefix("torch.")
        return f"XNNPACK's weights are int8, that of {node.name} is {dtype}"
    if found.limits == _INT4 and not is_dynamic:
        return f"XNNPACK takes weights of 4 bits ({node.name}) with dynamic activations only"
    if not is_zero(found.zero_point, ep):
        return f"XNNPACK's weights have no zero points, that of {node.name} has"
    return _unfit_groups(node, found)


def _unfit_groups(node: Node, found: Quantization) -> str | None:
    size = found.group_size
    if size is None:
        return None
    columns = node.meta["val"].shape[-1]
    if size < columns and found.limits != _INT4:
        return f"XNNPACK's groups of a weight's row have 4 bits, those of {node.name} have more"
    if (size < columns or found.limits == _INT4) and size % _GROUP:
        return f"XNNPACK's groups have multiples of {_GROUP} elements, those of {node.name} {size}"
    return None
