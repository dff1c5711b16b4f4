"""Which tensors of a program are images, which delegates keep in channels-last.

Convolutions, pools and what resizes pictures compute in channels-last; what works element by
element takes either layout. Rank-4 tensors that such ops connect can have both inside a delegate;
all others (heads of attention, say) are contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.aten_ops import Trait, traits
from orchestrator.graph.conversions import CONVERSION
from orchestrator.graph.queries import (
    compute_nodes,
    dim_order,
    is_getitem,
    op_name,
    tensor_results,
)
from orchestrator.planner import Flow, Layout

CHANNELS_LAST_ORDER = (0, 2, 3, 1)
CONTIGUOUS_ONLY = (Layout.CONTIGUOUS,)
BOTH_LAYOUTS = (Layout.CONTIGUOUS, Layout.CHANNELS_LAST)


def wants_channels_last(node: Node) -> bool:
    """Whether delegates compute a node in channels-last: an image op on rank-4 tensors."""
    return Trait.IMAGE in traits(op_name(node)) and _is_rank_4(node.all_input_nodes[0])


def _is_rank_4(node: Node) -> bool:
    return any(value.dim() == 4 for value in tensor_results(node))


def image_nodes(ep: ExportedProgram) -> set[Node]:
    """Return the nodes whose rank-4 values may be in channels-last inside a delegate."""
    found: set[Node] = set()
    waiting: list[Node] = []
    for node in compute_nodes(ep):
        if wants_channels_last(node):
            waiting += [node, node.all_input_nodes[0]]
    while waiting:
        node = waiting.pop()
        if node in found or not _is_rank_4(node):
            continue
        found.add(node)
        waiting += _connected(node)
    return found


def _connected(node: Node) -> Iterator[Node]:
    """Yield the values that have the layout of a node's value at no cost."""
    for user in node.users:
        if _passes(user):
            yield user
            yield from user.all_input_nodes
    if _passes(node):
        yield from node.all_input_nodes


def _passes(node: Node) -> bool:
    return node.op == "call_function" and (
        is_getitem(node) or Trait.TRANSPARENT in traits(op_name(node))
    )


def conversion(nodes: Sequence[Node]) -> Flow | None:
    """Return what nodes that only change the dim order of an image read and write, else None.

    They do so whatever the layout of what is around them: in the other layout, there would be
    nothing to do.
    """
    if len(nodes) != 1 or op_name(nodes[0]) != CONVERSION:
        return None
    read, written = (
        layout_in_memory(node.meta.get("val")) for node in (nodes[0].all_input_nodes[0], nodes[0])
    )
    return None if read is written else Flow(read, written)


def converted(node: Node) -> Node | None:
    """Return the node whose tensor a node brings to another dim order; None if it does more."""
    if op_name(node) != CONVERSION:
        return None
    source = node.all_input_nodes[0]
    read, made = source.meta.get("val"), node.meta.get("val")
    if not isinstance(read, torch.Tensor) or not isinstance(made, torch.Tensor):
        return None
    return source if read.dtype == made.dtype else None


def layout_in_memory(value: object) -> Layout:
    """Return the layout that the exported program gives a value between delegates."""
    is_image = isinstance(value, torch.Tensor) and value.dim() == len(CHANNELS_LAST_ORDER)
    if isinstance(value, torch.Tensor) and is_image and dim_order(value) == CHANNELS_LAST_ORDER:
        return Layout.CHANNELS_LAST
    return Layout.CONTIGUOUS


def layouts_of(nodes: Sequence[Node], images: set[Node]) -> tuple[Layout, ...]:
    """Return the layouts that an atom's nodes can compute in: both if they work on images.

    Of nodes that change the layout, it is the one that they read.

    images: of the program, see `image_nodes`.
    """
    changes = conversion(nodes)
    if changes is not None:
        return (changes.reads,)
    around = {source for node in nodes for source in (node, *node.all_input_nodes)}
    return CONTIGUOUS_ONLY if images.isdisjoint(around) else BOTH_LAYOUTS
