"""How flows lower and run: through ExecuTorch's own call, or just as `lower()` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from executorch.backends.test.harness.stages import Serialize, ToEdgeTransformAndLower
from executorch.devtools.etrecord import ETRecord
from executorch.exir.backend.partitioner import Partitioner
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from orchestrator.backends import resolve_backends
from orchestrator.edge import edge_compile_config
from orchestrator.edge_programs import EdgePrograms
from orchestrator.flow import to_edge_with
from orchestrator.frontend.dynamic_sizes import dynamic_sizes_kept
from orchestrator.frontend.passes import apply_passes
from orchestrator.frontend.rewrites import Rewriting
from orchestrator.kernels import fit_kernels
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner
from orchestrator.planning.make_plan import Solver

BACKENDS = resolve_backends(("ggml", "xnnpack"))


@dataclass(frozen=True)
class Way:
    """How to make a plan; solver: in place of the strategy that the options name."""

    options: PlanOptions
    solver: Solver | None = None


class Lower(ToEdgeTransformAndLower):  # type: ignore[misc]  # executorch is untyped
    """ExecuTorch's own call, with one partitioner."""

    def __init__(self, partitioner: Callable[[], Partitioner]) -> None:
        super().__init__(partitioner, edge_compile_config=edge_compile_config())


class RewriteAndLower(Lower):
    """ExecuTorch's own call on a program that this project's passes have rewritten."""

    def run(self, artifact: ExportedProgram, *args: Any, **kwargs: Any) -> None:
        """Lowers the program as this project's passes write it; dynamic sizes stay so."""
        program = apply_passes(artifact)
        with dynamic_sizes_kept([program]):
            super().run(program, *args, **kwargs)


class LowerAsWeDo(ToEdgeTransformAndLower):  # type: ignore[misc]
    """The way that a program takes in `lower()`, under several plans side by side.

    ways: by the name of the method that each becomes; "forward" is among them.
    """

    def __init__(self, ways: Mapping[str, Way]) -> None:
        super().__init__()
        self._ways = ways

    def run(
        self, artifact: ExportedProgram, inputs: Any = None, generate_etrecord: bool = False
    ) -> None:
        """Lowers the program once per plan."""
        programs = dict.fromkeys(self._ways, artifact)
        prepared = EdgePrograms()
        with torch.no_grad(), dynamic_sizes_kept(programs.values()):
            edge, _ = to_edge_with(programs, self._partitioner, prepared=prepared)
            for name in programs:
                fit_kernels(edge.exported_program(name))
        if generate_etrecord:
            # The suite counts the nodes that there were before.
            forward = self._partitioner("forward", Rewriting())
            before = prepared.manager({"forward": artifact}, {"forward": forward})
            edge._etrecord = ETRecord(edge_dialect_program=before.exported_program("forward"))
        self.edge_dialect_program = edge

    def _partitioner(self, name: str, rewriting: Rewriting) -> OrchestratorPartitioner:
        way = self._ways[name]
        return OrchestratorPartitioner(
            BACKENDS, way.options, solver=way.solver, rewriting=rewriting
        )


class RunNatively(Serialize):  # type: ignore[misc]
    """Runs programs in this project's runtime, not in ExecuTorch's Python module.

    method: to run; the tester sets it.
    """

    method = "forward"

    @cached_property
    def program(self) -> NativeProgram:
        """The loaded program."""
        return NativeProgram(self.buffer)

    def run_artifact(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs the method once; its results are flattened."""
        return self.program.run(self.method, pytree.tree_leaves(tuple(inputs)), relayout=True)
