"""What to measure for a model, without lowering it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.backend.partitioner import PartitionResult
from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.candidates import collect_candidates
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.task import Task
from orchestrator.edge import edge_compile_config
from orchestrator.partitioner import OrchestratorPartitioner


class _Collector(OrchestratorPartitioner):
    """Looks at a program as the partitioner would, and delegates nothing."""

    def __init__(self, backends: Sequence[Backend], threads: int) -> None:
        super().__init__(backends)
        self.tasks: list[Task] = []
        self._threads = threads

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        candidates = collect_candidates(exported_program, self.backends)
        keys = AtomKeys(exported_program, candidates)
        self.tasks += keys.tasks(self.backends, self._threads)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags={})


def collect_tasks(
    programs: Mapping[str, ExportedProgram], backends: Sequence[Backend], threads: int
) -> list[Task]:
    """Return every atom of some methods on every backend that may win it, once.

    Both the programs for all backends together and those for each alone are looked at: what one
    backend wants whole is decomposed for another.
    """
    sets: list[Sequence[Backend]] = [backends]
    if len(backends) > 1:
        sets += [[backend] for backend in backends]
    tasks: dict[tuple[str, str], Task] = {}
    with torch.no_grad():
        for chosen in sets:
            collectors = {name: _Collector(chosen, threads) for name in programs}
            to_edge_transform_and_lower(
                dict(programs),
                partitioner={name: [collector] for name, collector in collectors.items()},
                compile_config=edge_compile_config(),
            )
            for collector in collectors.values():
                for task in collector.tasks:
                    tasks.setdefault((task.backend_name, task.key), task)
    return list(tasks.values())
