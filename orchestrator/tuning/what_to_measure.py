"""What to measure for a model, without lowering it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.backends.candidates import collect_candidates
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.task import Task
from orchestrator.dry_run import edge_program
from orchestrator.options import PlanOptions
from orchestrator.planner import PlannerError
from orchestrator.planning.choice import Choice


def collect_tasks(
    programs: Mapping[str, ExportedProgram], backends: Sequence[Backend], threads: int
) -> list[Task]:
    """Return every atom of some methods on every backend that may win it, once.

    Both the programs for all backends together and those for each alone are looked at: what one
    backend wants preserved is decomposed for another, loops apart.
    """
    sets: list[Sequence[Backend]] = [backends]
    if len(backends) > 1:
        sets += [[backend] for backend in backends]
    tasks: dict[tuple[str, str], Task] = {}
    for chosen in sets:
        only = tuple(backend.name for backend in chosen)
        choice = Choice(only=only, order=only) if chosen is not backends else None
        for program in programs.values():
            try:
                edge = edge_program(program, backends, PlanOptions(tune="off"), choice)
            except PlannerError:
                continue  # there is no such plan
            keys = AtomKeys(edge, collect_candidates(edge, chosen))
            for task in keys.tasks(chosen, threads):
                tasks.setdefault((task.backend_name, task.key), task)
    return list(tasks.values())
