"""Which images XNNPACK can quantize dynamically without losing track of their order.

XNNPACK convolves in channels-last. In front of a convolution whose input is quantized in every run,
its pass (ChannelsLastTaggedReshapePass of ExecuTorch 1.5.1) goes back along the first inputs to
where the delegate begins, unless it meets channels-last before. It converts there, and gives what
it converted to every reader, also to those that it saw before and took for contiguous. A linear
layer's input is converted after it was quantized, which no kernel of XNNPACK takes.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import (
    ChannelsLastTaggedReshapePass,
)
from torch.fx import Node

from orchestrator.backends.xnnpack.group import Group, rank
from orchestrator.graph.quantized import is_choose_qparams, is_quantize
from orchestrator.graph.queries import op_name

_CONVOLUTION = "aten.convolution.default"
_TURNS_CHANNELS_LAST = ChannelsLastTaggedReshapePass.memory_sensitive_ops_nhwc
# Computed in whatever order their image is in.
_KEEP_ORDER = frozenset(
    f"aten.{name}.default"
    for name in (
        *("relu", "hardtanh", "clamp", "leaky_relu", "elu", "gelu", "sigmoid", "tanh", "exp"),
        *("hardswish", "abs", "neg", "ceil", "floor", "round", "sqrt", "rsqrt", "log"),
    )
)
# Of two images, whose orders the pass makes the same afterwards.
_SUMS = frozenset(f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div"))


def unfit_dynamic_image(group: Group) -> str | None:
    """Say which dynamically quantized image would be in another order than XNNPACK thinks."""
    around = group.around
    for node in group.nodes:
        source = node.args[0] if node.args else None
        if not is_choose_qparams(node) or not isinstance(source, Node) or rank(source) != 4:
            continue
        layer = next((each for each in group.nodes if op_name(each) == _CONVOLUTION), None)
        if layer is not None:
            constants = {*around.weights, *around.constants}
            return _unfit_source(source, layer, set(group.nodes), constants, around.takes)
        readers = (_CONVOLUTION in _layers(user) for user in source.users)
        if source in around.channels_last or any(readers):
            return f"XNNPACK may hold {source.name} in channels-last, which {node.name} is not for"
    return None


def _unfit_source(
    source: Node,
    layer: Node,
    readers: set[Node],
    constants: Container[Node],
    takes: Callable[[Node], bool],
) -> str | None:
    """Follow what a convolution reads to where XNNPACK converts it."""
    while source.op == "call_function" and takes(source):
        if source.target in _TURNS_CHANNELS_LAST:
            break
        if not _keeps_order(source, constants):
            return f"XNNPACK may lose track of the order that {source.name} is in"
        if not readers.issuperset(source.users):
            return _loses(source, next(user for user in source.users if user not in readers))
        readers, source = {source}, source.all_input_nodes[0]
    # What it comes to after the convolution follows.
    for user in source.users:
        layers = _layers(user)
        is_before = not layers and user not in readers and user.op != "output" and user < layer
        if layers - {_CONVOLUTION} or is_before:
            return _loses(source, user)
    return None


def _keeps_order(node: Node, constants: Container[Node]) -> bool:
    """Whether what an op computes is in the order of its images, of which the first comes first."""
    images = node.all_input_nodes
    if op_name(node) not in _KEEP_ORDER | _SUMS or node.args[:1] != tuple(images[:1]):
        return False
    return all(rank(image) == 4 and image not in constants for image in images)


def _loses(source: Node, reader: Node) -> str:
    return f"XNNPACK would give {source.name} to {reader.name} in channels-last as well"


def _layers(node: Node) -> set[str]:
    """The ops that compute with what a node quantizes, or finds the scale of; empty if neither."""
    if is_choose_qparams(node):
        quantizers = {user for each in node.users for user in each.users if is_quantize(user)}
        return {layer for each in quantizers for layer in _layers(each)}
    if not is_quantize(node):
        return set()
    return {op_name(layer) for each in node.users for layer in each.users}
