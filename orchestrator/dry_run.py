"""Planning without lowering: what `lower` would do, and why, in a fraction of the time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch.export import ExportedProgram

from ggml_delegate.torch_speed import composite_ops_looked_up_once
from orchestrator.backends import Backend, resolve_backends
from orchestrator.export import Model, as_programs
from orchestrator.flow import to_edge_with
from orchestrator.lowering import DEFAULT_BACKENDS, versions
from orchestrator.options import OptionError, PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner, PartitionedMethod
from orchestrator.report.data import Report

_METHOD = "forward"


@dataclass(frozen=True)
class DryRun:
    """What came of planning.

    methods: by name, the plan, its priced graph and the report.
    """

    report: Report
    methods: Mapping[str, PartitionedMethod]


def plan(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None = None,
    *,
    backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    **options: Any,
) -> DryRun:
    """Plan a model for several backends without lowering it.

    model, example_inputs, example_kwargs, dynamic_shapes, backends: as for `lower`.
    options: those of `PlanOptions`; with tune="measure" there would be programs to time, so it is
        refused.

    Raises:
        BackendError, ModelError, OptionError, PlannerError, CostTableError, TargetError: as for
            `lower`.
    """
    chosen = PlanOptions(**options)
    if chosen.tune == "measure":
        raise OptionError("a plan alone cannot be timed; use lower(), or tune='cached'")
    resolved = resolve_backends(backends)
    programs = as_programs(model, example_inputs, example_kwargs, dynamic_shapes)
    found = {name: _planned(each, resolved, chosen) for name, each in programs.items()}
    report = Report(
        backends=tuple(backend.name for backend in resolved),
        methods=tuple(
            replace(result.with_advice(), name=name) for name, (result, _) in found.items()
        ),
        versions=versions(),
    )
    return DryRun(report, {name: result for name, (result, _) in found.items()})


def edge_program(
    program: ExportedProgram, backends: Iterable[str | Backend], options: PlanOptions
) -> ExportedProgram:
    """Return the edge-dialect program that plans are made for, with its weights, undelegated."""
    found = _flow(program, resolve_backends(backends), options, OrchestratorPartitioner)
    return found[1]


class _Done(Exception):  # noqa: N818  # ends ExecuTorch's flow, no error
    def __init__(self, program: ExportedProgram) -> None:
        self.program = program


class _PlanningPartitioner(OrchestratorPartitioner):
    """Stops ExecuTorch's flow once there is a plan, before anything is lowered."""

    def partition(self, exported_program: ExportedProgram) -> NoReturn:
        super().partition(exported_program)
        raise _Done(exported_program)


def _planned(
    program: ExportedProgram, backends: tuple[Backend, ...], options: PlanOptions
) -> tuple[PartitionedMethod, ExportedProgram]:
    return _flow(program, backends, options, _PlanningPartitioner)


def _flow(
    program: ExportedProgram,
    backends: tuple[Backend, ...],
    options: PlanOptions,
    kind: type[OrchestratorPartitioner],
) -> tuple[PartitionedMethod, ExportedProgram]:
    """Run ExecuTorch's flow with a partitioner; the program is what it ends with."""
    made: list[OrchestratorPartitioner] = []

    def partitioner(_: str, decompose: Set[torch._ops.OpOverload]) -> OrchestratorPartitioner:
        made.append(kind(backends, options, decompose=decompose, dry_run=True))
        return made[-1]

    with torch.no_grad(), warnings.catch_warnings(), composite_ops_looked_up_once():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Mutation on a buffer")
        try:
            edge, _ = to_edge_with({_METHOD: program}, partitioner)
            found = edge.exported_program(_METHOD)
        except _Done as done:
            found = done.program
    return made[-1].results[-1], found
