"""What quirks are asked about: nodes that ExecuTorch's partitioner would give to XNNPACK as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import (
    ChannelsLastTaggedReshapePass,
)
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import computed_from
from orchestrator.graph.queries import compute_nodes, constant_nodes, dim_order, mutated_buffers


class Surroundings:
    """What is around the groups of one program.

    takes: whether XNNPACK has an operator for a node, which may be in the same delegate then.
    """

    def __init__(self, ep: ExportedProgram, takes: Callable[[Node], bool]) -> None:
        self.ep = ep
        self.takes = takes

    @cached_property
    def constants(self) -> set[Node]:
        """Placeholders of parameters, buffers and constants."""
        return constant_nodes(self.ep)

    @cached_property
    def mutated(self) -> set[Node]:
        """Placeholders of buffers that the model changes."""
        return mutated_buffers(self.ep)

    @cached_property
    def weights(self) -> Collection[Node]:
        """Nodes whose results are the same in every run."""
        return computed_from(compute_nodes(self.ep), self.constants - self.mutated)

    @cached_property
    def channels_last(self) -> set[Node]:
        """Images that XNNPACK may hold in channels-last as it runs, whatever their dim order says.

        Convolutions and others turn to it, and what follows stays in it.
        """
        found: set[Node] = set()
        for node in self.ep.graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, (tuple, list)) and value:  # of an op with several results
                value = value[0]
            if not isinstance(value, torch.Tensor) or value.dim() != 4:
                continue
            if node.target in ChannelsLastTaggedReshapePass.memory_sensitive_ops_nchw:
                continue
            if (
                node.target in ChannelsLastTaggedReshapePass.memory_sensitive_ops_nhwc
                or dim_order(value) == CHANNELS_LAST_ORDER
                or not found.isdisjoint(node.all_input_nodes)
            ):
                found.add(node)
        return found


MAX_RANK = 6
"""Of a tensor: XNN_MAX_TENSOR_DIMS."""


@dataclass(frozen=True)
class Group:
    """Nodes, in graph order, with the constants that they would have packed."""

    nodes: Sequence[Node]
    constants: Sequence[Node]
    around: Surroundings


def rank(node: Node) -> int:
    """The rank of a node's tensor, 0 if it is none."""
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of an op, wherever it was given."""
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)
