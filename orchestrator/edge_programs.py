"""Programs in the edge dialect, as they are before they are partitioned.

Bringing a program there takes most of the time of lowering it, and is the same for most plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executorch.exir import (
    EdgeCompileConfig,
    EdgeProgramManager,
    to_edge_transform_and_lower,
)
from executorch.exir.backend.partitioner import Partitioner, PartitionResult
from torch.export import ExportedProgram

from orchestrator.edge import edge_compile_config
from orchestrator.graph.copies import copy_of
from orchestrator.partitioner import OrchestratorPartitioner
from orchestrator.preparation import Preparation, Seen


@dataclass(frozen=True)
class _Prepared:
    """A program in the edge dialect. source: what it was made of. seen: by its partitioner."""

    source: ExportedProgram
    preparation: Preparation
    program: ExportedProgram
    seen: Seen


class EdgePrograms:
    """Brings programs to the edge dialect, once for all plans that have them written alike.

    What it made stays in memory, though not the weights a second time, for as long as it lives.
    """

    def __init__(self) -> None:
        self._prepared: list[_Prepared] = []

    def manager(
        self,
        programs: Mapping[str, ExportedProgram],
        partitioners: Mapping[str, OrchestratorPartitioner],
        constant_methods: Mapping[str, Any] | None = None,
    ) -> EdgeProgramManager:
        """Return the programs in the edge dialect; the partitioners know what was seen on the way.

        programs, partitioners: by method name.
        """
        wanted: dict[str, OrchestratorPartitioner] = {}
        for name, each in partitioners.items():
            alike = (
                programs[name] is programs[other]
                and each.preparation == partitioners[other].preparation
                for other in wanted
            )
            if self._find(programs[name], each) is None and not any(alike):
                wanted[name] = each
        if wanted:
            self._prepare({name: programs[name] for name in wanted}, wanted)
        copies = {}
        for name, each in partitioners.items():
            found = self._find(programs[name], each)
            assert found is not None, name
            each.saw(found.seen)
            copies[name] = copy_of(found.program)
        return EdgeProgramManager(
            copies,
            dict(constant_methods) if constant_methods else None,
            EdgeCompileConfig(_check_ir_validity=False),
        )

    def _find(
        self, program: ExportedProgram, partitioner: OrchestratorPartitioner
    ) -> _Prepared | None:
        preparation = partitioner.preparation
        for each in self._prepared:
            if each.source is program and each.preparation == preparation:
                return each
        return None

    def _prepare(
        self,
        programs: Mapping[str, ExportedProgram],
        partitioners: Mapping[str, OrchestratorPartitioner],
    ) -> None:
        edge = to_edge_transform_and_lower(
            dict(programs),
            transform_passes={name: each.edge_passes() for name, each in partitioners.items()},
            partitioner={name: [_Preparing(each)] for name, each in partitioners.items()},
            compile_config=edge_compile_config(),
        )
        self._prepared += [
            _Prepared(programs[name], each.preparation, edge.exported_program(name), each.seen)
            for name, each in partitioners.items()
        ]


class _Preparing(Partitioner):  # type: ignore[misc]  # executorch is untyped
    """Does what another partitioner does before it partitions, and stops there."""

    def __init__(self, wrapped: OrchestratorPartitioner) -> None:
        super().__init__()
        self._wrapped = wrapped

    def transform_for_pre_decomposition(self, exported_program: ExportedProgram) -> ExportedProgram:
        return self._wrapped.transform_for_pre_decomposition(exported_program)

    def ops_to_not_decompose(self, ep: ExportedProgram) -> Any:
        return self._wrapped.ops_to_not_decompose(ep)

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        return PartitionResult(tagged_exported_program=exported_program, partition_tags={})
