"""Lowers graphs in batches under several plans and compares every output with eager PyTorch."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

import orchestrator
from ggml_delegate.native import NativeProgram
from orchestrator.partitioner import Solver
from tests.differential.graphs import Graph
from tests.differential.plans import export_graphs, lower_plans
from tests.differential.pool import MAX_BATCH
from tests.differential.reduce import reduced
from tests.differential.tolerance import difference, outputs_of, tolerances


@dataclass
class Failure:
    """A graph that a plan got wrong, or that could not be lowered or run."""

    graph: Graph
    plan: str
    what: str

    def __str__(self) -> str:
        return f"{self.what}\nplan {self.plan}\n{self.graph.source()}"


@dataclass
class Tally:
    """What was compared."""

    graphs: int = 0
    plans: int = 0
    elements: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.graphs += other.graphs
        self.plans += other.plans
        self.elements += other.elements
        self.failures += other.failures


def check_graphs(
    graphs: Sequence[Graph],
    solvers: Mapping[str, Solver],
    *,
    whole: Sequence[Sequence[str]] = (),
) -> Tally:
    """Checks graphs together; where that raises, in halves, down to the graph that does it.

    Args:
        graphs: Each has to be comparable.
        solvers: Plans to make, by name.
        whole: Lists of backends for which the graphs also go through lower().
    """
    try:
        return _check_together(graphs, solvers, whole)
    except Exception:  # whatever lowering or running raises is a finding
        if len(graphs) > 1:
            tally, middle = Tally(), len(graphs) // 2
            for half in (graphs[:middle], graphs[middle:]):
                tally.add(check_graphs(half, solvers, whole=whole))
            return tally
        return Tally(graphs=1, failures=[Failure(graphs[0], _first(solvers), _last_lines())])


def reduce_failure(failure: Failure, solvers: Mapping[str, Solver]) -> Failure:
    """The failure with a smaller graph, if one is found."""

    def fails(graph: Graph) -> bool:
        return bool(check_graphs([graph], solvers).failures)

    graph = reduced(failure.graph, fails)
    if graph is failure.graph:
        return failure
    return next(iter(check_graphs([graph], solvers).failures), failure)


def _check_together(
    graphs: Sequence[Graph], solvers: Mapping[str, Solver], whole: Sequence[Sequence[str]]
) -> Tally:
    tally = Tally(graphs=len(graphs))
    if solvers:
        native = NativeProgram(lower_plans(export_graphs(graphs), solvers))
        for name in solvers:
            tally.add(_compare(graphs, native, name, name))
    for backends in whole:
        lowered = orchestrator.lower(export_graphs(graphs), backends=backends)
        label = f"lower(backends={list(backends)})"
        tally.add(_compare(graphs, NativeProgram(lowered.buffer), "forward", label))
    return tally


def _compare(graphs: Sequence[Graph], native: NativeProgram, method: str, label: str) -> Tally:
    tally = Tally(plans=1)
    for seed, batch in _runs(graphs):
        inputs = [graph.make_inputs(seed, batch) for graph in graphs]
        flat = [value for part in inputs for value in part]
        results = iter(native.run(method, flat, relayout=True))
        for graph, values in zip(graphs, inputs, strict=True):
            wanted = outputs_of(graph, values)
            allowed = tolerances(graph, values)
            for i, (want, most) in enumerate(zip(wanted, allowed, strict=True)):
                got = next(results)
                assert isinstance(got, Tensor)
                tally.elements += want.numel()
                what = difference(got, want, most)
                if what is not None:
                    text = f"output {i} with seed {seed}: {what}"
                    tally.failures.append(Failure(graph, label, text))
                    break
            else:
                continue
            # Skip what is left of this graph's outputs.
            for _ in range(len(wanted) - i - 1):
                next(results)
    return tally


def _runs(graphs: Sequence[Graph]) -> Iterator[tuple[int, int | None]]:
    """Seeds and batch sizes to run with."""
    yield 1, None
    yield 2, None
    if any(graph.dynamic for graph in graphs):
        yield 3, 1
        yield 4, MAX_BATCH


def _first(solvers: Mapping[str, Solver]) -> str:
    return ", ".join(solvers)


def _last_lines() -> str:
    return "\n".join(traceback.format_exc().strip().splitlines()[-24:])
