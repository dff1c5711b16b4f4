"""Lowers graphs in batches under several plans and compares every output with eager PyTorch."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orchestrator
from orchestrator.backends import Backend
from orchestrator.native import NativeProgram
from orchestrator.planning.make_plan import Solver
from tests.differential.graphs import Graph
from tests.differential.plans import lower_as_lower_does, lower_plans
from tests.differential.reduce import reduced
from tests.differential.subjects import METHOD, Subject
from tests.harness.allowed import Allowed


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
    by_lower: how many of them `orchestrator.lower` made. traits: how many graphs had each trait.
    """

    graphs: int = 0
    plans: int = 0
    by_lower: int = 0
    elements: int = 0
    traits: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.graphs += other.graphs
        self.plans += other.plans
        self.by_lower += other.by_lower
        self.elements += other.elements
        self.traits += other.traits
        self.failures += other.failures


def check_graphs(subject: Subject, solvers: Mapping[str, Solver]) -> Tally:
    """Checks graphs side by side under each plan, by name.

    Where lowering or running raises, it is done in parts, down to the graph and plan that do it.
    The tally leaves the number of graphs to the caller.
    """
    tally = Tally()
    if subject.two_methods:  # the methods of all plans in one file would share their states
        for name, solver in solvers.items():
            tally.add(_check_plan(subject, name, solver))
        return tally
    try:
        native = NativeProgram(_lowered(subject, solvers))
    except Exception:  # whatever lowering or loading raises is a finding
        return _check_apart(subject, solvers)
    for name, solver in solvers.items():
        try:
            tally.add(_compare(subject, native, {METHOD: name}, name))
        except Exception:  # the same for running
            tally.add(_check_apart(subject, {name: solver}))
    return tally


def check_by_lower(subject: Subject, backends: Sequence[str | Backend]) -> Tally:
    """Checks graphs side by side through `orchestrator.lower`, with the plan that it finds itself.

    A graph that it warns will not load, because no backend and no kernel has one of its ops, is not
    counted. The tally leaves the number of graphs to the caller.
    """
    names = [each if isinstance(each, str) else each.name for each in backends]
    label = f"lower(backends={names})"
    try:
        program = orchestrator.lower(subject.programs, backends=backends, tune="off")
        if not any(method.missing_kernels for method in program.report.methods):
            methods = {method: method for method in subject.programs}
            tally = _compare(subject, NativeProgram(program.buffer), methods, label)
            tally.by_lower = tally.plans
            return tally
        failures = []
    except Exception:  # a finding, as above
        failures = [Failure(subject.graphs[0], label, _last_lines())]
    if len(subject.graphs) == 1:
        return Tally(failures=failures)
    tally = Tally()
    for half in subject.halves():
        tally.add(check_by_lower(half, backends))
    return tally


def reduce_failure(failure: Failure, check: Callable[[Graph], Tally]) -> Failure:
    """The failure with a smaller graph, if one is found."""
    graph = reduced(failure.graph, lambda graph: bool(check(graph).failures))
    if graph is failure.graph:
        return failure
    return next(iter(check(graph).failures), failure)


def _check_apart(subject: Subject, solvers: Mapping[str, Solver]) -> Tally:
    """Checks each half of the graphs; of one graph, each plan."""
    tally = Tally()
    if len(subject.graphs) > 1:
        for half in subject.halves():
            tally.add(check_graphs(half, solvers))
        return tally
    for name, solver in solvers.items():
        tally.add(_check_plan(subject, name, solver))
    return tally


def _check_plan(subject: Subject, name: str, solver: Solver) -> Tally:
    """Checks graphs under one plan; where it raises, each half of them."""
    methods = {method: method for method in subject.programs}
    try:
        if subject.two_methods:
            solvers = dict.fromkeys(methods, solver)
            buffer = lower_as_lower_does(
                subject.programs, solvers, shares_state=True, third=subject.third
            )
        else:
            methods = {METHOD: name}
            buffer = _lowered(subject, {name: solver})
        return _compare(subject, NativeProgram(buffer), methods, name)
    except Exception:
        if len(subject.graphs) == 1:
            return Tally(failures=[Failure(subject.graphs[0], name, _last_lines())])
    tally = Tally()
    for half in subject.halves():
        tally.add(_check_plan(half, name, solver))
    return tally


def _lowered(subject: Subject, solvers: Mapping[str, Solver]) -> bytes:
    """A .pte with one method per plan, by the plan's name."""
    program = subject.programs[METHOD]
    if subject.as_lower_does:
        programs = dict.fromkeys(solvers, program)
        return lower_as_lower_does(programs, solvers, third=subject.third)
    return lower_plans(program, solvers, third=subject.third)


def _compare(
    subject: Subject, native: NativeProgram, methods: Mapping[str, str], label: str
) -> Tally:
    """Makes the subject's calls in turn; `methods` has the program's name of each method."""
    tally = Tally(plans=len(subject.graphs))
    for call in subject.calls:
        results = iter(native.run(methods[call.method], call.inputs, relayout=True))
        for graph, wanted in zip(subject.graphs, call.wanted, strict=True):
            got = [next(results) for _ in wanted]
            tally.elements += sum(want.value.numel() for want in wanted)
            what = _first_difference(got, wanted)
            if what is not None:
                tally.failures.append(Failure(graph, label, f"{call.what}: {what}"))
    return tally


def _first_difference(got: Sequence[object], wanted: Sequence[Allowed]) -> str | None:
    for i, (value, want) in enumerate(zip(got, wanted, strict=True)):
        what = want.difference(value)
        if what is not None:
            return f"output {i}: {what}"
    return None


def _last_lines() -> str:
    return "\n".join(traceback.format_exc().strip().splitlines()[-24:])
