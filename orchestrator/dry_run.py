"""Planning without lowering: what `lower` would do, and why, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from orchestrator.advice.alternatives import with_decomposed_alternatives
from orchestrator.backends import Backend, resolve_backends
from orchestrator.dim_orders.as_given import choose_orders
from orchestrator.flow import plan_only, to_edge_with
from orchestrator.frontend.export import Model
from orchestrator.frontend.quantize import Recipe, as_quantized_programs
from orchestrator.frontend.rewrites import Rewriting
from orchestrator.frontend.torch_state import as_in_lowering
from orchestrator.options import DEFAULT_BACKENDS, OptionError, PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner, PartitionedMethod
from orchestrator.planning.choice import Choice
from orchestrator.report.build import with_notes
from orchestrator.report.data import Report
from orchestrator.versions import versions

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
    quantize: Recipe | None = None,
    calibration: Iterable[Any] = (),
    **options: Any,
) -> DryRun:
    """Plan a model for several backends without lowering it.

    model, example_inputs, example_kwargs, dynamic_shapes, backends, quantize, calibration: as for
        `lower`.
    options: those of `PlanOptions`; with tune="measure" there would be programs to time, so it is
        refused.

    Raises:
        BackendError, ModelError, OptionError, PlannerError, CostTableError, TargetError: as for
            `lower`.
    """
    chosen = PlanOptions(**options)
    if chosen.tune == "measure":
        raise OptionError("a plan alone cannot be timed; use lower(), or tune='cached'")
    resolved = resolve_backends(backends, chosen)
    programs, notes = as_quantized_programs(
        model, example_inputs, example_kwargs, dynamic_shapes, quantize, calibration
    )
    with as_in_lowering(programs.values()):
        orders = choose_orders(programs, resolved, chosen)
        found = {
            name: plan_only(each, resolved, chosen, orders.get(name))
            for name, each in programs.items()
        }
        methods = [
            with_decomposed_alternatives(
                with_notes(replace(found[name].with_advice(), name=name), *notes),
                [backend.name for backend in resolved],
                lambda choice, each=each: plan_only(each, resolved, chosen, choice).report,  # type: ignore[misc]
            )
            for name, each in programs.items()
        ]
    report = Report(
        backends=tuple(backend.name for backend in resolved),
        methods=tuple(methods),
        versions=versions(),
    )
    return DryRun(report, found)


def edge_program(
    program: ExportedProgram,
    backends: Iterable[str | Backend],
    options: PlanOptions,
    choice: Choice | None = None,
) -> ExportedProgram:
    """Return the edge-dialect program that plans are made for, with its weights, undelegated.

    choice: what was decided beforehand.
    """
    resolved = resolve_backends(backends)

    def partitioner(_: str, rewriting: Rewriting) -> OrchestratorPartitioner:
        return OrchestratorPartitioner(
            resolved, options, choice=choice, rewriting=rewriting, dry_run=True
        )

    with as_in_lowering([program]):
        edge, _ = to_edge_with({_METHOD: program}, partitioner)
    found: ExportedProgram = edge.exported_program(_METHOD)
    return found
