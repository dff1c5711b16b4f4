"""Has quantized layers read contiguous images.

XNNPACK's passes lose track of an image that reaches a quantize in channels-last, and what comes out
fails when it is run, or is wrong. Inside its delegates XNNPACK computes in channels-last whatever
the program says.
"""

from __future__ import annotations

from typing import Any

import torch
from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.graph.conversions import faked, insert_conversion, read_instead
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import is_quantization
from orchestrator.graph.queries import compute_nodes, dim_order, is_getitem, tensors_of

_CONTIGUOUS_ORDER = (0, 1, 2, 3)


class QuantizedOrderPass(ExportedProgramPassBase):  # type: ignore[misc]  # executorch is untyped
    """An edge-dialect pass, for `transform_passes` of `to_edge_transform_and_lower`."""

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        """Insert conversions in place; see `make_quantized_contiguous`."""
        return ExportedProgramPassResult(
            exported_program, make_quantized_contiguous(exported_program)
        )


def make_quantized_contiguous(ep: ExportedProgram) -> bool:
    """Insert conversions in front of what quantizes images in channels-last; edits `ep` in place.

    What follows computes in whatever order results from that; the program's outputs keep theirs.
    Returns whether anything changed.
    """
    copies: dict[Node, Node] = {}
    for node in list(compute_nodes(ep)):
        if not is_quantization(node):
            continue
        for source in node.all_input_nodes:
            if _is_channels_last(source) and not is_quantization(source):
                if source not in copies:
                    copies[source] = _copy(ep, source, _CONTIGUOUS_ORDER, "contiguous")
                node.replace_input_with(source, copies[source])
    if not copies:
        return False
    outputs = [each for each in ep.graph.output_node().all_input_nodes if _is_channels_last(each)]
    _compute_anew(ep, {user for copy in copies.values() for user in copy.users})
    for output in outputs:
        if not _is_channels_last(output):
            copy = _copy(ep, output, CHANNELS_LAST_ORDER, "channels_last")
            read_instead([ep.graph.output_node()], output, copy, ep.graph_signature)
    ep.graph_module.recompile()
    return True


def _is_channels_last(node: Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dim() != 4 or value.is_contiguous():
        return False
    return dim_order(value) == CHANNELS_LAST_ORDER


def _copy(ep: ExportedProgram, tensor: Node, order: tuple[int, ...], suffix: str) -> Node:
    dtype = tensor.meta["val"].dtype
    return insert_conversion(ep.graph, tensor, suffix, dtype=dtype, dim_order=order)


def _compute_anew(ep: ExportedProgram, changed: set[Node]) -> None:
    """Find the values of nodes again whose inputs' dim orders changed, and so on after them."""
    for node in ep.graph.nodes:
        if node not in changed or node.op != "call_function":
            continue
        if is_getitem(node):
            source, index = node.args
            value: Any = source.meta["val"][index]
        else:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), _value)
            with faked(node.meta["val"]), torch.no_grad():
                value = node.target(*args, **kwargs)
        if _orders(value) != _orders(node.meta["val"]):
            changed.update(node.users)
        node.meta["val"] = value


def _value(node: Node) -> Any:
    return node.meta["val"]


def _orders(value: Any) -> list[Any]:
    return [dim_order(tensor) for tensor in tensors_of(value)]
