"""Lowers graphs in batches under several plans and compares every output with eager PyTorch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

import orchestrator
from ggml_delegate.native import NativeProgram
from orchestrator.planning import Solver
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
    """What was compared.

    plans: how many lowered graphs there were, those of one graph under several plans counted each.
    whole: how many of them `orchestrator.lower` made.
    """

    graphs: int = 0
    plans: int = 0
    whole: int = 0
    elements: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.graphs += other.graphs
        self.plans += other.plans
        self.whole += other.whole
        self.elements += other.elements
        self.failures += other.failures


def check_graphs(graphs: Sequence[Graph], solvers: Mapping[str, Solver]) -> Tally:
    """Checks graphs side by side under each plan, by name.

    Where lowering or running raises, it is done in parts, down to the graph and plan that do it.
    The tally leaves the number of graphs to the caller.
    """
    try:
        native = NativeProgram(lower_plans(export_graphs(graphs), solvers))
    except Exception:  # whatever lowering or loading raises is a finding
        return _check_apart(graphs, solvers)
    tally = Tally()
    for name, solver in solvers.items():
        try:
            tally.add(_compare(graphs, native, name, name))
        except Exception:  # the same for running
            tally.add(_check_apart(graphs, {name: solver}))
    return tally


def check_whole(graphs: Sequence[Graph], backends: Sequence[str]) -> Tally:
    """Checks graphs side by side through `orchestrator.lower`, with the plan that it finds itself.

    A graph that it warns will not load, because no backend and no kernel has one of its ops, is not
    counted. The tally leaves the number of graphs to the caller.
    """
    label = f"lower(backends={list(backends)})"
    try:
        program = orchestrator.lower(export_graphs(graphs), backends=backends, tune="off")
        if not any(method.missing_kernels for method in program.report.methods):
            tally = _compare(graphs, NativeProgram(program.buffer), "forward", label)
            tally.whole = tally.plans
            return tally
        failures = []
    except Exception:  # a finding, as above
        failures = [Failure(graphs[0], label, _last_lines())]
    if len(graphs) == 1:
        return Tally(failures=failures)
    tally = Tally()
    for half in _halves(graphs):
        tally.add(check_whole(half, backends))
    return tally


def reduce_failure(failure: Failure, check: Callable[[Graph], Tally]) -> Failure:
    """The failure with a smaller graph, if one is found."""
    graph = reduced(failure.graph, lambda graph: bool(check(graph).failures))
    if graph is failure.graph:
        return failure
    return next(iter(check(graph).failures), failure)


def _check_apart(graphs: Sequence[Graph], solvers: Mapping[str, Solver]) -> Tally:
    """Checks each half of the graphs; of one graph, each plan."""
    tally = Tally()
    if len(graphs) > 1:
        for half in _halves(graphs):
            tally.add(check_graphs(half, solvers))
        return tally
    for name, solver in solvers.items():
        try:
            native = NativeProgram(lower_plans(export_graphs(graphs), {name: solver}))
            tally.add(_compare(graphs, native, name, name))
        except Exception:
            tally.failures.append(Failure(graphs[0], name, _last_lines()))
    return tally


def _halves(graphs: Sequence[Graph]) -> tuple[Sequence[Graph], Sequence[Graph]]:
    return graphs[: len(graphs) // 2], graphs[len(graphs) // 2 :]


def _compare(graphs: Sequence[Graph], native: NativeProgram, method: str, label: str) -> Tally:
    tally = Tally(plans=len(graphs))
    for seed, batch in _runs(graphs):
        inputs = [graph.make_inputs(seed, batch) for graph in graphs]
        flat = [value for part in inputs for value in part]
        results = iter(native.run(method, flat, relayout=True))
        for graph, values in zip(graphs, inputs, strict=True):
            wanted = outputs_of(graph, values)
            got = [next(results) for _ in wanted]
            tally.elements += sum(want.numel() for want in wanted)
            what = _first_difference(got, wanted, tolerances(graph, values))
            if what is not None:
                tally.failures.append(Failure(graph, label, f"seed {seed}: {what}"))
    return tally


def _first_difference(
    got: Sequence[object], wanted: Sequence[Tensor], allowed: Sequence[float]
) -> str | None:
    for i, (value, want, most) in enumerate(zip(got, wanted, allowed, strict=True)):
        assert isinstance(value, Tensor)
        what = difference(value, want, most)
        if what is not None:
            return f"output {i}: {what}"
    return None


def _runs(graphs: Sequence[Graph]) -> Iterator[tuple[int, int | None]]:
    """Seeds and batch sizes to run with."""
    yield 1, None
    yield 2, None
    if any(graph.dynamic for graph in graphs):
        yield 3, 1
        yield 4, MAX_BATCH


def _last_lines() -> str:
    return "\n".join(traceback.format_exc().strip().splitlines()[-24:])
