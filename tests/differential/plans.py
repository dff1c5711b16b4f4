"""Several plans for the same graphs, lowered as the methods of one program."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence

import torch
from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower
from executorch.exir.backend.partitioner import PartitionResult
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram, export

from orchestrator.backends import resolve_backends
from orchestrator.capability import split_by_capability
from orchestrator.channels_last import ChannelsLastPass
from orchestrator.edge import edge_compile_config
from orchestrator.kernel_dim_orders import make_kernels_contiguous
from orchestrator.options import PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner, UndecomposedOpError
from orchestrator.planner import CostGraph, Plan, price_plan, split_into_segments
from orchestrator.planning import Solver
from tests.differential.graphs import Graph, UnionModule
from tests.differential.pool import MAX_BATCH

BACKENDS = ("ggml", "xnnpack")
_OPTIONS = PlanOptions(tune="off")  # the plans must not depend on what this machine has measured
# The plans under which images stay in channels-last between delegates, as `lower` has it.
_CHANNELS_LAST_PLANS = {"both", "random_1"}


def export_graphs(graphs: Sequence[Graph]) -> ExportedProgram:
    """One program of several graphs; each dynamic one has a batch size of its own."""
    inputs = [value for graph in graphs for value in graph.make_inputs(0)]
    shapes: list[dict[int, Dim] | None] = []
    for index, graph in enumerate(graphs):
        size = Dim(f"n{index}", min=1, max=MAX_BATCH)
        shapes += [{0: size} if spec.dynamic else None for spec in graph.inputs]
    dynamic = any(graph.dynamic for graph in graphs)
    return export(
        UnionModule(graphs).eval(),
        tuple(inputs),
        dynamic_shapes=(tuple(shapes),) if dynamic else None,
    )


def is_exportable(graph: Graph) -> bool:
    """Whether torch exports the graph with the sizes that are to stay dynamic."""
    try:
        export_graphs([graph])
    except UserError:  # an op fixes the size, or a relation of sizes
        return False
    return True


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


def plans_for(graphs: Sequence[Graph], seed: int) -> dict[str, Solver]:
    """One plan per subset of the backends, and two random ones.

    Graphs with channels-last inputs stay on delegates where they can: kernels that change a
    tensor's rank refuse such tensors.
    """
    if any(spec.channels_last for graph in graphs for spec in graph.inputs):
        return {
            "both": split_by_capability,
            "only_ggml": only("ggml"),
            "random_0": random_plan(seed, kernels=False),
            "random_1": random_plan(seed + 1, kernels=False),
        }
    return {
        "both": split_by_capability,
        "only_ggml": only("ggml"),
        "only_xnnpack": only("xnnpack"),
        "kernels": only("portable"),
        "random_0": random_plan(seed),
        "random_1": random_plan(seed + 1),
    }


class _KeepsOps(OrchestratorPartitioner):
    """Keeps the ops that backends want whole; partitions nothing, but checks that it could."""

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        super().partition(exported_program)
        for node in exported_program.graph.nodes:
            node.meta.pop("delegation_tag", None)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags={})


def lower_plans(program: ExportedProgram, solvers: Mapping[str, Solver]) -> bytes:
    """A .pte with one method per plan, by the plan's name."""
    with torch.no_grad():
        edge = _to_edge(program)
        partitioners = {
            name: OrchestratorPartitioner(BACKENDS, _OPTIONS, solver=solver)
            for name, solver in solvers.items()
        }
        programs = {name: copy.deepcopy(edge) for name in solvers}
        for name in _CHANNELS_LAST_PLANS & programs.keys():
            ChannelsLastPass(resolve_backends(BACKENDS)).call(programs[name])
        manager = EdgeProgramManager(programs, compile_config=edge_compile_config())
        lowered = manager.to_backend(dict(partitioners))
        for name in solvers:
            make_kernels_contiguous(lowered.exported_program(name))
        buffer = lowered.to_executorch().buffer
    return bytes(buffer)


def _to_edge(program: ExportedProgram) -> ExportedProgram:
    decompose: set[torch._ops.OpOverload] = set()
    while True:
        try:
            manager = to_edge_transform_and_lower(
                program,
                partitioner=[
                    _KeepsOps(BACKENDS, _OPTIONS, decompose=decompose, solver=split_by_capability)
                ],
                compile_config=edge_compile_config(),
            )
        except UndecomposedOpError as error:
            if decompose.issuperset(error.ops):
                raise
            decompose.update(error.ops)
        else:
            return manager.exported_program()
