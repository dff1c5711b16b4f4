"""Has ExecuTorch's kernels compute on contiguous tensors.

Many kernels refuse another dim order when they run, and some (`flip`, `scatter`, `cat`, padding,
norms) take it and give wrong numbers. What a lowered program leaves to kernels gets contiguous
copies of what it reads; what it makes is brought back to the dim order that others expect of it.
Kernels that follow each other hand contiguous tensors over, so that only boundaries are converted.
Channels-last is the one other order that ExecuTorch can convert to; where the model has yet
another, what kernels make stays contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.tensor import dim_order_from_stride
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.graph.conversions import insert_conversion, read_instead
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.queries import (
    compute_nodes,
    is_dim_order_op,
    is_getitem,
    is_stored_as_asked,
)


def make_kernels_contiguous(ep: ExportedProgram) -> bool:
    """Insert conversions around what no delegate has; edits `ep`, a lowered program, in place.

    Returns whether anything changed.
    """
    editor = _Editor(ep)
    for node in list(compute_nodes(ep)):
        if _is_kernel(node):
            editor.convert_sources(node)
            editor.convert_results(node)
        elif not is_stored_as_asked(node):
            editor.ask_for_default(node)
    if editor.changed:
        ep.graph_module.recompile()
    return editor.changed


def _is_kernel(node: Node) -> bool:
    """Whether a kernel runs a node, other than those whose purpose is a dim order."""
    return isinstance(node.target, EdgeOpOverload) and not is_dim_order_op(node)


class _Editor:
    def __init__(self, ep: ExportedProgram) -> None:
        self._ep = ep
        self._contiguous: dict[Node, Node] = {}
        self.changed = False

    def convert_sources(self, node: Node) -> None:
        """Have a node read contiguous copies."""
        for source in node.all_input_nodes:
            value = source.meta.get("val")
            if not _is_reordered(value):
                continue
            if source not in self._contiguous:
                order = range(value.dim())
                self._contiguous[source] = self._insert(source, order, "contiguous")
            node.replace_input_with(source, self._contiguous[source])

    def convert_results(self, node: Node) -> None:
        """Have a node make contiguous tensors, and all but kernels read copies of them."""
        value = node.meta.get("val")
        if not isinstance(value, (list, tuple)):
            self._convert_result(node)
            return
        node.meta["val"] = type(value)(_contiguous(item) for item in value)
        for user in list(node.users):
            if is_getitem(user):
                self._convert_result(user)

    def _convert_result(self, tensor: Node) -> None:
        value = tensor.meta.get("val")
        if not _is_reordered(value):
            return
        self._set_contiguous(tensor)
        readers = [user for user in tensor.users if not _is_kernel(user)]
        if readers and _stored_order(value) == CHANNELS_LAST_ORDER:
            copy = self._insert(tensor, CHANNELS_LAST_ORDER, "channels_last")
            read_instead(readers, tensor, copy, self._ep.graph_signature)

    def ask_for_default(self, node: Node) -> None:
        """Have a conversion make a contiguous tensor, which has its elements in the same places."""
        rank = node.meta["val"].dim()
        node.kwargs = {**node.kwargs, "dim_order": list(range(rank))}
        self._set_contiguous(node)

    def _set_contiguous(self, tensor: Node) -> None:
        tensor.meta["val"] = _contiguous(tensor.meta["val"])
        tensor.meta.pop("tensor_meta", None)
        self.changed = True

    def _insert(self, tensor: Node, order: Sequence[int], suffix: str) -> Node:
        self.changed = True
        dtype = tensor.meta["val"].dtype
        return insert_conversion(self._ep.graph, tensor, suffix, dtype=dtype, dim_order=order)


def _stored_order(value: torch.Tensor) -> tuple[int, ...]:
    """The dim order that ExecuTorch writes down for a tensor."""
    return tuple(map(int, dim_order_from_stride(value.stride())))


def _is_reordered(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor that is not stored in the default dim order."""
    return isinstance(value, torch.Tensor) and _stored_order(value) != tuple(range(value.dim()))


def _contiguous(value: Any) -> Any:
    if not _is_reordered(value):
        return value
    with value.fake_mode:  # type: ignore[attr-defined]
        return torch.empty(value.shape, dtype=value.dtype, device=value.device)
