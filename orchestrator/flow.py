"""ExecuTorch's lowering flow, run with this project's partitioner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower
from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.edge import edge_compile_config
from orchestrator.edge_programs import EdgePrograms
from orchestrator.failures import Refusals, find_failure, is_ours, lowering_error
from orchestrator.frontend.rewrites import Rewriting, StartOver
from orchestrator.options import PlanOptions
from orchestrator.partitioner import (
    OrchestratorPartitioner,
    PartitionedMethod,
)
from orchestrator.planner import PlannerError
from orchestrator.planning.choice import Choice

P = TypeVar("P", bound=OrchestratorPartitioner)


def to_edge_with(
    programs: Mapping[str, ExportedProgram],
    make_partitioner: Callable[[str, Rewriting], P],
    *,
    constant_methods: Mapping[str, Any] | None = None,
    generate_etrecord: bool = False,
    refusals: Refusals | None = None,
    prepared: EdgePrograms | None = None,
) -> tuple[EdgeProgramManager, dict[str, P]]:
    """Bring programs to the edge dialect, run the partitioners' passes, partition and lower them.

    Whatever plans, compares or measures goes this way too, and so sees the nodes that get lowered.

    Ops that were preserved, and that nothing takes after all, are decomposed in another round, and
    quantized weights that no delegate takes are expanded to floats.
    Where images in channels-last, or quantized tables that backends take, leave no plan within a
    limit on partitions, images stay contiguous, and kernels look rows of tables up.
    What a backend fails to compile goes elsewhere in another round, if refusals are kept.

    Args:
        programs: by method name.
        make_partitioner: makes a method's partitioner, given its name and what earlier rounds have
            shown.
        constant_methods, generate_etrecord: as for `to_edge_transform_and_lower`.
        refusals: what backends do not get, which the partitioners go by; added to.
        prepared: where to look for programs in the edge dialect, and to keep them for the next
            plans; not used where an ETRecord is generated, which has to see them made.

    Returns:
        The edge programs, and the partitioners of the last round by method name.

    Raises:
        LoweringError: ExecuTorch fails, or a backend does and refusals are not kept.
    """
    rewriting = Rewriting()
    for_kernels = False
    while True:
        partitioners = {name: make_partitioner(name, rewriting) for name in programs}
        if for_kernels:
            for each in partitioners.values():
                each.write_for_kernels()
        try:
            if prepared is not None and not generate_etrecord:
                edge = prepared.manager(programs, partitioners, constant_methods)
                return edge.to_backend(dict(partitioners)), partitioners
            edge = to_edge_transform_and_lower(
                dict(programs),
                transform_passes={name: each.edge_passes() for name, each in partitioners.items()},
                partitioner={name: [each] for name, each in partitioners.items()},
                compile_config=edge_compile_config(),
                constant_methods=dict(constant_methods) if constant_methods else None,
                generate_etrecord=generate_etrecord,
            )
        except StartOver as start:
            rewriting = start.rewriting
        except PlannerError:
            limited = any(each.limits_partitions for each in partitioners.values())
            if for_kernels or not limited:
                raise
            for_kernels = True
        except Exception as error:
            failure = find_failure(error)
            if failure is None and is_ours(error):
                raise
            if failure is None or refusals is None:
                raise lowering_error(error, failure) from error
            segments = {
                name: each.results[-1].report.segments if each.results else ()
                for name, each in partitioners.items()
            }
            backends = next(iter(partitioners.values())).backends
            if not refusals.add(failure, backends, segments):
                raise lowering_error(error, failure) from error
        else:
            return edge, partitioners


class _Done(Exception):  # noqa: N818  # ends ExecuTorch's flow, no error
    pass


class _PlanningPartitioner(OrchestratorPartitioner):
    """Stops ExecuTorch's flow once there is a plan, before anything is lowered."""

    def partition(self, exported_program: ExportedProgram) -> NoReturn:
        super().partition(exported_program)
        raise _Done


def plan_only(
    program: ExportedProgram,
    backends: tuple[Backend, ...],
    options: PlanOptions,
    choice: Choice | None = None,
) -> PartitionedMethod:
    """Plan one program as `to_edge_with` would lower it, in a fraction of the time.

    choice: what was decided beforehand.
    """
    made: list[OrchestratorPartitioner] = []

    def partitioner(_: str, rewriting: Rewriting) -> OrchestratorPartitioner:
        made.append(_PlanningPartitioner(backends, options, rewriting=rewriting, choice=choice))
        return made[-1]

    try:
        to_edge_with({"forward": program}, partitioner)
    except _Done:
        return made[-1].results[-1]
    raise AssertionError("the flow ended without a plan")
