"""Other plans worth timing: the best ones if some costs were different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.planner import CostGraph, Plan, PlannerError, Price, solve
from orchestrator.planning import Choice, Planned

# A plan tells something about a backend that this part of its time is spent on.
_MOSTLY = 0.8
# The best plan if a call cost this part of the whole more has fewer calls.
_CALL_PRICE = 0.01


def is_mostly_on(plan: Plan, backend: str) -> bool:
    """Whether a plan's time tells something about one backend."""
    pairs = zip(plan.segments, plan.cost.segments, strict=True)
    there = sum(cost.total_ns for segment, cost in pairs if segment.backend == backend)
    return there > _MOSTLY * plan.total_ns


def with_dearer_calls(planned: Planned) -> Choice | None:
    """Return the best plan if every delegate call cost more."""
    graph = planned.graph
    extra = _CALL_PRICE * planned.plan.total_ns
    backends = [
        replace(backend, call_overhead_ns=backend.call_overhead_ns + extra)
        if backend.is_delegate
        else backend
        for backend in graph.backends
    ]
    dearer = CostGraph(backends, graph.atoms, graph.tensors, graph.constants)
    return _solved("fewer calls", dearer, planned)


def with_factors(planned: Planned, factors: Mapping[str, float]) -> Choice | None:
    """Return the best plan if the atoms of some backends cost so many times more."""
    graph = planned.graph
    changes = {}
    for index, atom in enumerate(graph.atoms):
        costs = {}
        for name, factor in factors.items():
            number = graph.backend_index[name]
            by_flow = {
                option.flow: Price(factor * option.price.ns, factor * option.price.spread_ns)
                for option in graph.options[index]
                if option.backend == number and option.price is not None
            }
            if by_flow:
                costs[name] = by_flow
        changes[atom.id] = costs
    return _solved("corrected", graph.with_costs(changes), planned)


def _solved(name: str, graph: CostGraph, planned: Planned) -> Choice | None:
    try:
        plan = solve(graph, planned.constraints)
    except PlannerError:
        return None
    return Choice(name, assignment=dict(plan.assignment))
