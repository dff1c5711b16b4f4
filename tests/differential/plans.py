"""Several plans for the same graphs, lowered as the methods of one program."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence

import torch
from executorch.exir import (
    EdgeProgramManager,
    ExecutorchBackendConfig,
    to_edge_transform_and_lower,
)
from executorch.exir.backend.partitioner import PartitionResult
from executorch.exir.passes import MemoryPlanningPass
from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.dim_orders.channels_last import ChannelsLastPass
from orchestrator.edge import edge_compile_config
from orchestrator.edge_programs import EdgePrograms
from orchestrator.flow import to_edge_with
from orchestrator.frontend.dynamic_sizes import dynamic_sizes_kept
from orchestrator.graph.queries import mutated_buffers
from orchestrator.kernels import fit_kernels
from orchestrator.options import PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner, UndecomposedOpError
from orchestrator.planner import CostGraph, Plan, price_plan, split_into_segments
from orchestrator.planning.greedy_split import split_by_capability
from orchestrator.planning.make_plan import Solver
from tests.differential.graphs import Graph
from tests.differential.subjects import METHOD, Subject
from tests.differential.third import backends_with, check_strangers

_OPTIONS = PlanOptions(tune="off")  # the plans must not depend on what this machine has measured
# The plans under which images stay in channels-last between delegates, as `lower` has it.
_CHANNELS_LAST_PLANS = {"both", "random_1"}


def export_graphs(graphs: Sequence[Graph]) -> ExportedProgram:
    """One program of several graphs; each dynamic one has sizes of its own."""
    return Subject(graphs).programs[METHOD]


def random_plan(seed: int, *, kernels: bool = True) -> Solver:
    """A solver that sends atoms to backends by chance, often to where their inputs are.

    kernels: whether ExecuTorch's kernels get what a delegate would take.
    """

    def solve(graph: CostGraph) -> Plan:
        rng = random.Random(seed)
        stays = rng.choice([0.0, 0.5, 0.8])
        assignment: dict[str, str] = {}
        for index in graph.order:
            atom = graph.atoms[index].id
            able = [b for b in graph.backends if graph.capable(atom, b.name)]
            if not kernels:
                able = [b for b in able if b.is_delegate] or able
            before = [assignment[graph.atoms[pred].id] for pred in graph.preds[index]]
            names = [b.name for b in able]
            same = [name for name in before if name in names]
            assignment[atom] = rng.choice(same if same and rng.random() < stays else names)
        return price_plan(graph, split_into_segments(graph, assignment), solver="random")

    return solve


def only(name: str) -> Solver:
    """A solver that gives one backend, or the kernels, all that it can run."""

    def solve(graph: CostGraph) -> Plan:
        assignment = {}
        for atom in graph.atoms:
            able = [b.name for b in reversed(graph.backends) if graph.capable(atom.id, b.name)]
            assignment[atom.id] = name if name in able else able[0]
        return price_plan(graph, split_into_segments(graph, assignment), solver=name)

    return solve


def two_plans_for(graphs: Sequence[Graph], seed: int, third: str = "") -> dict[str, Solver]:
    """A random plan, and one of the other ones by chance."""
    plans = plans_for(graphs, seed, third)
    others = [name for name in plans if name != "random_0"]
    return {name: plans[name] for name in ("random_0", random.Random(seed).choice(others))}


def plans_for(graphs: Sequence[Graph], seed: int, third: str = "") -> dict[str, Solver]:
    """One plan per subset of ggml and XNNPACK, one for a third backend, and two random ones.

    Graphs with channels-last inputs stay on delegates where they can: kernels that change a
    tensor's rank refuse such tensors.
    """
    alone = {f"only_{third}": only(third)} if third else {}
    if any(spec.channels_last for graph in graphs for spec in graph.inputs):
        return alone | {
            "both": split_by_capability,
            "only_ggml": only("ggml"),
            "random_0": random_plan(seed, kernels=False),
            "random_1": random_plan(seed + 1, kernels=False),
        }
    return alone | {
        "both": split_by_capability,
        "only_ggml": only("ggml"),
        "only_xnnpack": only("xnnpack"),
        "kernels": only("portable"),
        "random_0": random_plan(seed),
        "random_1": random_plan(seed + 1),
    }


class _KeepsOps(OrchestratorPartitioner):
    """Keeps the ops that backends want preserved; partitions nothing, but checks that it could."""

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        super().partition(exported_program)
        for node in exported_program.graph.nodes:
            node.meta.pop("delegation_tag", None)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags={})


def lower_plans(
    program: ExportedProgram, solvers: Mapping[str, Solver], *, third: str = ""
) -> bytes:
    """A .pte with one method per plan, by the plan's name.

    All plans share the edge-dialect program, which makes this several times as fast as lowering
    as `lower()` does. It has no second round of rewriting for what a plan shows.

    third: a backend beside ggml and XNNPACK.
    """
    backends = backends_with(third)
    with torch.no_grad():
        edge = _to_edge(program, backends)
        partitioners = {
            name: OrchestratorPartitioner(backends, _OPTIONS, solver=solver)
            for name, solver in solvers.items()
        }
        programs = {name: copy.deepcopy(edge) for name in solvers}
        for name in _CHANNELS_LAST_PLANS & programs.keys():
            ChannelsLastPass(backends).call(programs[name])
        manager = EdgeProgramManager(programs, compile_config=edge_compile_config())
        lowered = manager.to_backend(dict(partitioners))
        for name in solvers:
            _keep_initial_states(lowered.exported_program(name))
            fit_kernels(lowered.exported_program(name))
        check_strangers({name: lowered.exported_program(name) for name in solvers})
        buffer = lowered.to_executorch().buffer
    return bytes(buffer)


def lower_as_lower_does(
    programs: Mapping[str, ExportedProgram],
    solvers: Mapping[str, Solver],
    *,
    shares_state: bool = False,
    third: str = "",
) -> bytes:
    """A .pte with one method per program, each under its own plan, by the same way as `lower()`.

    programs, solvers: by method. shares_state: whether methods share the buffers of one name.
    third: a backend beside ggml and XNNPACK.
    """
    with torch.no_grad(), dynamic_sizes_kept(programs.values()):
        edge, _ = to_edge_with(
            programs,
            lambda name, rewriting: OrchestratorPartitioner(
                backends_with(third), _OPTIONS, solver=solvers[name], rewriting=rewriting
            ),
            prepared=EdgePrograms(),
        )
        for name in programs:
            _keep_initial_states(edge.exported_program(name))
            fit_kernels(edge.exported_program(name))
        check_strangers({name: edge.exported_program(name) for name in programs})
        config = ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=shares_state)
        )
        return bytes(edge.to_executorch(config).buffer)


def _keep_initial_states(program: ExportedProgram) -> None:
    for node in mutated_buffers(program):
        node.meta["et_init_buffer"] = True


def _to_edge(program: ExportedProgram, backends: Sequence[Backend]) -> ExportedProgram:
    decompose: set[torch._ops.OpOverload] = set()
    while True:
        try:
            manager = to_edge_transform_and_lower(
                program,
                partitioner=[
                    _KeepsOps(backends, _OPTIONS, decompose=decompose, solver=split_by_capability)
                ],
                compile_config=edge_compile_config(),
            )
        except UndecomposedOpError as error:
            if decompose.issuperset(error.ops):
                raise
            decompose.update(error.ops)
        else:
            return manager.exported_program()
