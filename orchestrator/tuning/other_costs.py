"""Other plans worth timing: the best ones if some costs were different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.planner import CostGraph, PlannerError, solve
from orchestrator.planning.choice import Choice
from orchestrator.planning.make_plan import Planned
from orchestrator.tuning.program_factors import ProgramFactors

# The best plan if a call cost this part of the whole more has fewer calls.
_CALL_PRICE = 0.01


def with_dearer_calls(planned: Planned) -> Choice | None:
    """Return the best plan if every delegate call cost more."""
    extra_ns = _CALL_PRICE * planned.plan.total_ns
    delegates = [backend.name for backend in planned.graph.backends if backend.is_delegate]
    dearer = _with_calls(planned.graph, dict.fromkeys(delegates, extra_ns))
    return _solved("fewer calls", dearer, planned)


def without_ties(planned: Planned) -> Choice | None:
    """Return the cheapest plan, also where the difference is within the spread of the costs."""
    return _solved("without ties", planned.graph.without_spreads(), planned)


def corrected(planned: Planned, factors: ProgramFactors) -> Choice | None:
    """Return the best plan if ops and calls take what whole programs have shown."""
    return _solved("corrected", corrected_graph(planned.graph, factors), planned)


def corrected_graph(graph: CostGraph, factors: ProgramFactors) -> CostGraph:
    """Return the graph in which ops and calls take what whole programs have shown."""
    graph = _with_calls(graph, factors.call_ns)
    changes = {}
    for index, atom in enumerate(graph.atoms):
        costs = {}
        for name, factor in factors.by_delegate.items():
            number = graph.backend_index[name]
            by_flow = {
                option.flow: option.price.times(factor)
                for option in graph.options[index]
                if option.backend == number and option.price is not None
            }
            if by_flow:
                costs[name] = by_flow
        changes[atom.id] = costs
    return graph.with_costs(changes)


def _with_calls(graph: CostGraph, extra_ns: Mapping[str, float]) -> CostGraph:
    backends = [
        replace(
            backend, call_overhead_ns=backend.call_overhead_ns + extra_ns.get(backend.name, 0.0)
        )
        for backend in graph.backends
    ]
    return CostGraph(backends, graph.atoms, graph.tensors, graph.constants)


def _solved(name: str, graph: CostGraph, planned: Planned) -> Choice | None:
    try:
        plan = solve(graph, planned.constraints)
    except PlannerError:
        return None
    return Choice(name, assignment=dict(plan.assignment))
