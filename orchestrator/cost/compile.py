"""Many atoms as the methods of one small .pte, each on one backend."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from executorch.exir import EdgeProgramManager
from executorch.exir.backend.partitioner import Partitioner, PartitionResult
from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.backends.checks import delegation_spec
from orchestrator.cost.extract import AtomProgram
from orchestrator.edge import edge_compile_config
from orchestrator.graph.queries import compute_nodes, constant_nodes
from orchestrator.quiet import quiet_imports


@dataclass(frozen=True)
class Request:
    """One atom on one backend; None: ExecuTorch's kernels.

    separate_calls: every node in a delegate call of its own.
    """

    atom: AtomProgram
    backend: Backend | None
    separate_calls: bool = False


class _Whole(Partitioner):  # type: ignore[misc]  # executorch is untyped
    """Gives every node and constant to one backend."""

    def __init__(self, backend: Backend, separate_calls: bool) -> None:
        super().__init__()
        self._spec = delegation_spec(backend)
        self._separate = separate_calls

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        nodes = list(compute_nodes(exported_program))
        for number, node in enumerate(nodes):
            node.meta["delegation_tag"] = f"call_{number if self._separate else 0}"
        for node in constant_nodes(exported_program):
            node.meta["delegation_tag"] = "call_0"
        tags = dict.fromkeys((node.meta["delegation_tag"] for node in nodes), self._spec)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags=tags)


def compile_requests(requests: Mapping[str, Request]) -> bytes:
    """The .pte with one method per request.

    Raises:
        Exception: whatever a backend raises about an atom that it cannot lower after all.
    """
    with torch.no_grad(), quiet_imports():
        edge = EdgeProgramManager(
            {name: copy.deepcopy(request.atom.program) for name, request in requests.items()},
            compile_config=edge_compile_config(),
        )
        partitioners: dict[str, Partitioner] = {
            name: _Whole(request.backend, request.separate_calls)
            for name, request in requests.items()
            if request.backend is not None
        }
        if partitioners:
            edge = edge.to_backend(partitioners)
        return bytes(edge.to_executorch().buffer)


def compile_what_can_be(
    requests: Mapping[str, Request],
) -> tuple[list[tuple[bytes, list[str]]], dict[str, str]]:
    """(programs with their methods, reasons by request that does not compile).

    One bad atom costs only itself: a batch that fails is cut in two.
    """
    if not requests:
        return [], {}
    try:
        return [(compile_requests(requests), list(requests))], {}
    except Exception as error:
        if len(requests) == 1:
            (name,) = requests
            return [], {name: f"{type(error).__name__}: {error}"}
    names = list(requests)
    programs: list[tuple[bytes, list[str]]] = []
    failures: dict[str, str] = {}
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        more, failed = compile_what_can_be({name: requests[name] for name in half})
        programs += more
        failures |= failed
    return programs, failures
