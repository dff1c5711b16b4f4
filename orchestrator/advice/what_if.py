"""What-if: changes to a model or its plan, and what each is predicted to gain.

Every figure is a shadow price: the graph or the constraints are changed and solved again. What
`lower` can be told (pins, limits) is compared with the chosen plan, as that is what changes. What a
backend would have to learn is compared with the cheapest plan, both without regard to ties: which
of several plans is taken that cannot be told apart has nothing to do with the op. This needs the
planner alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.planner import (
    Constraints,
    CostGraph,
    Pin,
    Plan,
    PlannerError,
    is_tie,
    solve,
)
from orchestrator.report.data import AdviceReport

# Questions per kind: the most promising ones are asked.
_MOST_QUESTIONS = 8
# States that one answer may take before its search becomes a beam; the plan itself had more room.
# And all answers together, less than a second: a beam over a large graph alone takes more.
_ROOM = 1_000
_MOST_STATES = 8_000
# What an answer takes beside its search, as states per atom: greedy plans, and their bound.
_STATES_PER_ATOM = 2
# A limit on partitions is searched for with several prices of calls.
_SEARCHES_PER_LIMIT = 10
# A support that gains less than this part of the latency is not worth telling.
_LEAST_GAIN = 0.002


@dataclass(frozen=True)
class Rejected:
    """Atoms that one backend rejects for one reason.

    supposed_ns: what each would cost there, by atom id.
    """

    backend: str
    op: str
    reason: str
    remedy: str
    supposed_ns: Mapping[str, float]


@dataclass(frozen=True)
class Module:
    """Atoms (ids) that come from one module of the user's."""

    path: str
    atoms: tuple[str, ...]


@dataclass(frozen=True)
class Questions:
    """What to ask about one program."""

    rejected: tuple[Rejected, ...] = ()
    modules: tuple[Module, ...] = ()


def advise(
    graph: CostGraph,
    plan: Plan,
    questions: Questions,
    constraints: Constraints | None = None,
    chosen_ns: float | None = None,
) -> tuple[AdviceReport, ...]:
    """Ask what other ops, pins and partition limits would gain; the best answers come first.

    constraints: those of the plan, which the others respect as well.
    chosen_ns: what a pin or a limit is compared with, where the plan that was chosen is of another
        graph than this.

    Nothing is asked about a plan that has unknown costs. About a large graph only so much is asked
    as can be answered in less than a second.
    """
    base = constraints or Constraints()
    if not plan.cost.is_complete or not plan.segments:
        return ()
    oracle = _Oracle()
    supports = list(_supports(oracle, graph, plan, questions.rejected, base))
    answers = []
    # Several pins, or limits, may lead to the same plan; the first stands for all.
    seen = set()
    for answer, other in (
        *_pins(oracle, graph, plan, questions.modules, base),
        *_fewer_partitions(oracle, graph, plan, base),
    ):
        assignment = tuple(sorted(other.assignment.items()))
        if assignment not in seen:
            answers.append(answer)
        seen.add(assignment)
    shift = 0.0 if chosen_ns is None else chosen_ns - plan.total_ns
    answers = [replace(answer, gain_ns=answer.gain_ns + shift) for answer in answers]
    return tuple(sorted([*answers, *supports], key=lambda answer: -answer.gain_ns))


class _Oracle:
    """Solves graphs until that has taken as many states as all answers may."""

    def __init__(self) -> None:
        self._left = _MOST_STATES
        self._longest = 0

    def best(self, graph: CostGraph, constraints: Constraints) -> Plan | None:
        """The best plan; None if there is none, or no room to look for it."""
        searches = 1 if constraints.max_partitions is None else _SEARCHES_PER_LIMIT
        if self._left < searches * self._longest:
            return None
        try:
            found = solve(graph, constraints, room=_ROOM)
        except PlannerError:
            return None  # the question has no answer: nothing satisfies it
        taken = found.states + _STATES_PER_ATOM * len(graph.atoms)
        self._left -= taken
        if constraints.max_partitions is None:
            self._longest = max(self._longest, taken)
        return found if found.cost.is_complete else None


def _supports(
    oracle: _Oracle, graph: CostGraph, plan: Plan, rejected: Iterable[Rejected], base: Constraints
) -> Iterator[AdviceReport]:
    """If a backend took an op that it rejects."""
    groups = [group for group in rejected if group.supposed_ns]
    groups.sort(key=lambda group: -_stake(graph, plan, group))
    exact = graph.without_spreads()
    cheapest = oracle.best(exact, base) if groups else None
    least_ns = plan.total_ns if cheapest is None else min(cheapest.total_ns, plan.total_ns)
    for group in groups[:_MOST_QUESTIONS]:
        changed = exact.with_costs(
            {atom: {group.backend: ns} for atom, ns in group.supposed_ns.items()}
        )
        other = oracle.best(changed, base)
        gain = 0.0 if other is None else least_ns - other.total_ns
        if gain < _LEAST_GAIN * plan.total_ns:
            continue
        count = len(group.supposed_ns)
        times = f" ({count} times)" if count > 1 else ""
        yield AdviceReport(
            "support",
            f"if {group.backend} took {group.op}{times}: {group.reason.replace(group.op, 'it')}",
            gain,
            group.backend,
            tuple(group.supposed_ns),
            group.remedy,
            assumed=True,
        )


def _stake(graph: CostGraph, plan: Plan, group: Rejected) -> float:
    """What the atoms cost now, beyond what they are supposed to."""
    total = 0.0
    for atom, supposed in group.supposed_ns.items():
        backend = plan.assignment[atom]
        prices = [
            option.price.ns
            for option in graph.options[graph.atom_index[atom]]
            if option.price is not None and graph.backends[option.backend].name == backend
        ]
        total += max(0.0, min(prices, default=0.0) - supposed)
    return total


def _pins(
    oracle: _Oracle, graph: CostGraph, plan: Plan, modules: Iterable[Module], base: Constraints
) -> Iterator[tuple[AdviceReport, Plan]]:
    """If a whole module, or what a small segment holds, had to run on one other delegate."""
    delegates = [backend.name for backend in graph.backends if backend.is_delegate]
    questions: dict[tuple[str, tuple[str, ...]], str] = {}
    for module in modules:
        for name in delegates:
            if _moves(graph, plan, module.atoms, name):
                questions.setdefault((name, module.atoms), module.path)
    ranked = sorted(questions.items(), key=lambda item: len(item[0][1]))
    for (name, atoms), path in ranked[:_MOST_QUESTIONS]:
        other = oracle.best(graph, replace(base, pins=(*base.pins, Pin(path, atoms, name))))
        if other is not None:
            gain = plan.total_ns - other.total_ns
            tie = _is_tie(graph, plan, other)
            text = f"pinning {path} to {name}"
            yield AdviceReport("pin", text, gain, name, atoms, tie=tie, pins={path: name}), other


def _moves(graph: CostGraph, plan: Plan, atoms: Sequence[str], backend: str) -> bool:
    able = all(graph.capable(atom, backend) for atom in atoms)
    return able and any(plan.assignment[atom] != backend for atom in atoms)


def _fewer_partitions(
    oracle: _Oracle, graph: CostGraph, plan: Plan, base: Constraints
) -> Iterator[tuple[AdviceReport, Plan]]:
    count = len(plan.partitions)
    for most in dict.fromkeys((count - 1, 1)):
        if not 0 < most < count:
            continue
        other = oracle.best(graph, replace(base, max_partitions=most))
        if other is not None:
            calls = "delegate call" if most == 1 else "delegate calls"
            text = f"at most {most} {calls} instead of {count}"
            gain, tie = plan.total_ns - other.total_ns, _is_tie(graph, plan, other)
            yield AdviceReport("partitions", text, gain, tie=tie, max_partitions=most), other


def _is_tie(graph: CostGraph, plan: Plan, other: Plan) -> bool:
    return is_tie(graph, *sorted((plan, other), key=lambda each: each.total_ns))
