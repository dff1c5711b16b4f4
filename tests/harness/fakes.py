"""Backends for tests: each takes the ops it is told to and runs them on XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import Backend, Candidate, Rejection, Support
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.graph.queries import compute_nodes, constant_nodes, op_name


class OpsBackend(Backend):
    """Takes the nodes whose op is listed ("add" means aten.add.Tensor and the like).

    groups: sets of op names; neighbouring nodes whose ops are in one set form one candidate.
    preserved: ATen ops to preserve.
    keeps: the filter for those.
    """

    backend_id = XnnpackBackend.__name__

    def __init__(
        self,
        name: str,
        ops: Collection[str],
        *,
        groups: Sequence[Collection[str]] = (),
        divisible: bool = True,
        preserved: Sequence[torch._ops.OpOverload] = (),
        keeps: Callable[[Node], bool] = lambda node: True,
        unavailable: str | None = None,
    ) -> None:
        self.name = name
        self._ops = set(ops)
        self._groups = groups
        self._divisible = divisible
        self._preserved = preserved
        self._keeps = keeps
        self._unavailable = unavailable

    def available(self) -> str | None:
        return self._unavailable

    def propose(self, ep: ExportedProgram) -> Support:
        fixed = constant_nodes(ep)
        candidates, rejections = [], []
        for node in compute_nodes(ep):
            if short_name(node) in self._ops:
                weights = tuple(arg for arg in node.all_input_nodes if arg in fixed)
                candidates.append(Candidate((node,), weights))
            else:
                rejections.append(Rejection(node, f"{self.name} lacks {short_name(node)}"))
        for group in self._groups:
            for node in compute_nodes(ep):
                members = (node, *(user for user in node.users if short_name(user) in group))
                if short_name(node) in group and len(members) > 1:
                    candidates.append(Candidate(members, divisible=self._divisible))
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], Callable[[Node], bool]]:
        return self._preserved, self._keeps


def short_name(node: Node) -> str:
    """Shorten "aten.add.Tensor" to "add"; operators of Python's, as on sizes, become "py_add"."""
    name = op_name(node)
    if "." in name:
        return name.split(".")[1]
    return name if name == "getitem" else f"py_{name}"


def edge_program(module: nn.Module, *inputs: torch.Tensor) -> ExportedProgram:
    """A module in the edge dialect, everything decomposed."""
    config = EdgeCompileConfig(_check_ir_validity=False)
    with torch.no_grad(), repeated_work_spared():
        exported = torch.export.export(module.eval(), inputs)
        return to_edge(exported, compile_config=config).exported_program()


def plain_flow(exported: ExportedProgram, partitioner: object) -> bytes:
    """A .pte made without lower(): ExecuTorch's own call with one partitioner."""
    config = EdgeCompileConfig(_check_ir_validity=False)
    with torch.no_grad():
        edge = to_edge_transform_and_lower(
            exported, partitioner=[partitioner], compile_config=config
        )
        return edge.to_executorch().buffer
