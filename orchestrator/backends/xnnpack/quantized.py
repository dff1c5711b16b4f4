"""Which quantized groups XNNPACK computes as the model says.

ExecuTorch's configs match by the shape of the graph; the rest shows when a group is serialized, as
a failed assertion, or not at all, as wrong numbers. What is said here was found with ExecuTorch
1.5.1: XNNPACK's integers have 8 bits and a sign, weights have no zero point, groups of a weight's
row have 4 bits and multiples of 32 elements, and dynamic activations are asymmetric.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.xnnpack.group import Group
from orchestrator.graph.conversions import CONVERSION
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import (
    Quantization,
    is_choose_qparams,
    is_dequantize,
    is_quantization,
    is_quantize,
    is_zero,
    quantization,
)
from orchestrator.graph.queries import dim_order, dtype_name, op_name

_INT8 = (-128, 127)
_INT4 = (-8, 7)
_GROUP = 32
_LAYERS = {"aten.convolution.default", "aten.linear.default"}


def unfit_dim_order(group: Group) -> str | None:
    """Say which image of a quantized group is in channels-last, of which XNNPACK loses track."""
    for node in filter(is_quantization, group.nodes):
        for value in (each.meta.get("val") for each in (node, *node.all_input_nodes)):
            if isinstance(value, torch.Tensor) and dim_order(value) == CHANNELS_LAST_ORDER:
                return f"XNNPACK quantizes contiguous images, {node.name} is about channels-last"
    return None


def unfit_conversion(group: Group) -> str | None:
    """Say which conversion of dim orders is next to what is quantized."""
    for node in group.nodes:
        is_conversion = op_name(node) == CONVERSION
        if is_conversion and any(map(is_quantization, (*node.all_input_nodes, *node.users))):
            return f"XNNPACK cannot convert dim orders ({node.name}) next to what is quantized"
    return None


def unfit_float_activation(group: Group) -> str | None:
    """Say which quantized weight meets floats: its integers would be taken for floats."""
    expanded = _expanded(group)
    if expanded and not any(map(is_dequantize, _activations(group))):
        return f"XNNPACK takes no quantized weight ({expanded[0].name}) with float activations"
    return None


def unfit_pad(group: Group) -> str | None:
    """Say which pad of what is quantized has no layer after it.

    XNNPACK's passes quantize the result of a pad whose input is, which only a layer goes on with.
    """
    for node in group.nodes:
        if op_name(node) != "aten.constant_pad_nd.default":
            continue
        if is_dequantize(node.all_input_nodes[0]):
            other = next((each for each in node.users if op_name(each) not in _LAYERS), None)
            if other is not None:
                return f"XNNPACK pads what is quantized for layers, not for {other.name}"
    return None


def unfit_float_weight(group: Group) -> str | None:
    """Say which layer has quantized activations and a weight of floats.

    PT2E leaves the weight so in the second use of one that two layers share.
    """
    weights = group.around.weights
    for node in group.nodes:
        if op_name(node) not in _LAYERS or not is_dequantize(node.all_input_nodes[0]):
            continue
        activation, weight = node.all_input_nodes[:2]
        is_float = weight in weights and not is_dequantize(weight)
        if is_float and activation not in weights:
            name = weight.name
            return f"XNNPACK takes no weight of floats ({name}) with quantized activations"
    return None


def unfit_activation(group: Group) -> str | None:
    """Say which activation has other integers than XNNPACK's."""
    return next(filter(None, map(_unfit_activation, _activations(group))), None)


def unfit_symmetry(group: Group) -> str | None:
    """Say which activation is quantized without a zero point in every run."""
    for node in group.nodes:
        if is_choose_qparams(node) and "SYMMETRIC" in node.args:
            return f"XNNPACK quantizes activations with a zero point, and {node.name} without"
    return None


def unfit_weight(group: Group) -> str | None:
    """Say which weight has other integers, zero points or groups than XNNPACK's."""
    is_dynamic = any(map(is_choose_qparams, group.nodes))
    found = (_unfit_weight(node, is_dynamic, group.around.ep) for node in _expanded(group))
    return next(filter(None, found), None)


def unfit_half(group: Group) -> str | None:
    """Say which weight of 8 bits meets activations of float16."""
    for node in _expanded(group):
        found = quantization(node)
        half = node.meta["val"].dtype == torch.float16
        if half and found is not None and found.limits != _INT4:
            return f"XNNPACK takes weights of 4 bits with float16, that of {node.name} has 8"
    return None


def _expanded(group: Group) -> list[Node]:
    """The weights that are dequantized."""
    return [node for node in group.nodes if is_dequantize(node) and node in group.around.weights]


def _activations(group: Group) -> list[Node]:
    """What quantizes or dequantizes anything else."""
    return [
        node
        for node in group.nodes
        if (is_quantize(node) or is_dequantize(node)) and node not in group.around.weights
    ]


def _unfit_activation(node: Node) -> str | None:
    found = quantization(node)
    if found is None:
        return f"XNNPACK does not know how {node.name} quantizes"
    if found.dtype != torch.int8 or found.limits != _INT8:
        low, high = found.limits
        dtype = dtype_name(found.dtype)
        return (
            f"XNNPACK's activations are int8 of -128 to 127, those of {node.name} {dtype} of {low} "
            f"to {high}"
        )
    return None


def _unfit_weight(node: Node, is_dynamic: bool, ep: ExportedProgram) -> str | None:
    found = quantization(node)
    if found is None:
        return f"XNNPACK does not know how {node.name} quantizes"
    if op_name(node).startswith("orchestrator."):
        return f"XNNPACK does not know {op_name(node)}, which {node.name} is"
    if found.dtype == torch.int32:  # a bias
        return None
    if found.dtype != torch.int8:
        dtype = dtype_name(found.dtype)
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
