"""What a plan costs, and what others would: from planner terms to the report's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.planner import (
    Calls,
    CostGraph,
    Plan,
    PlannerError,
    SegmentCost,
    greedy,
    private_bytes,
)
from orchestrator.report.data import AlternativeReport, PlanReport, SegmentReport
from orchestrator.report.words import plural

# Only planning anew tells what a graph made for fewer backends would cost.
_REMEDY = "see `plan`"


def describe_plan(plan: Plan, graph: CostGraph, calls: Calls | None = None) -> PlanReport:
    """Describe a plan and the plans that it was chosen over.

    calls: which of them backends refuse, so that the other plans are ones that can be lowered, too.
    """
    complete = plan.cost.is_complete
    return PlanReport(
        solver=plan.solver,
        predicted_ns=plan.total_ns if complete else None,
        spread_ns=plan.cost.spread_ns if complete else None,
        lower_bound_ns=plan.lower_bound_ns if complete else None,
        gap=plan.gap,
        unknown=plan.cost.unknown,
        notes=plan.notes,
        alternatives=tuple(_alternatives(graph, calls)),
        private_bytes=private_bytes(graph, plan.assignment),
    )


def with_cost(segment: SegmentReport, cost: SegmentCost) -> SegmentReport:
    """Add a segment's predicted time and its parts."""
    return replace(
        segment,
        predicted_ns=cost.total_ns,
        spread_ns=cost.spread_ns,
        atoms_ns=cost.atoms_ns,
        overhead_ns=cost.overhead_ns,
        boundary_ns=cost.boundary_ns,
    )


def _alternatives(graph: CostGraph, calls: Calls | None) -> Iterable[AlternativeReport]:
    names = [backend.name for backend in graph.backends]
    delegates = [backend.name for backend in graph.backends if backend.is_delegate]
    kernels = [name for name in names if name not in delegates]
    for name in delegates:
        yield _alternative(graph, calls, f"{name} alone", "single", [name])
    if kernels:
        yield _alternative(graph, calls, "no delegate", "single", [])
    for first in delegates if len(delegates) > 1 else ():
        order = [first, *(name for name in delegates if name != first)]
        title = f"greedy: {', '.join(order)}"
        yield _alternative(graph, calls, title, "greedy", order)


def _alternative(
    graph: CostGraph, calls: Calls | None, name: str, kind: str, delegates: Sequence[str]
) -> AlternativeReport:
    """A greedy plan on some delegates alone, by the same prices as the chosen one."""
    made = AlternativeReport(name, kind, backends=tuple(delegates))
    kernels = (backend.name for backend in graph.backends if not backend.is_delegate)
    backends = [*delegates, *kernels]
    allowed = {
        atom.id: {backend for backend in backends if graph.capable(atom.id, backend)}
        for atom in graph.atoms
    }
    impossible = sum(not options for options in allowed.values())
    if impossible:
        problem = f"no kernel here for {plural(impossible, 'op')} of this graph"
        return replace(made, problem=problem, remedy=_REMEDY)
    others = [backend.name for backend in graph.backends if backend.name not in backends]
    try:
        plan = greedy(graph, [*backends, *others], allowed=allowed)
        plan = plan if calls is None else calls.taken_apart(graph, plan)
    except PlannerError as error:
        return replace(made, problem=str(error))
    predicted = plan.total_ns if plan.cost.is_complete else None
    return replace(made, partitions=len(plan.partitions), predicted_ns=predicted)


def atom_prices(
    plan: Plan, graph: CostGraph, atom: str
) -> tuple[dict[str, float | None], float | None]:
    """Return an atom's cheapest price on every backend that can run it, and its price as planned.

    None stands for an unknown price.
    """
    costs: dict[str, float | None] = {}
    predicted = None
    for option in graph.options[graph.atom_index[atom]]:
        name = graph.backends[option.backend].name
        price = None if option.price is None else option.price.ns
        known = costs.setdefault(name, price)
        if price is not None and (known is None or price < known):
            costs[name] = price
        if name == plan.assignment[atom] and option.flow == plan.flows[atom]:
            predicted = price
    return costs, predicted


def conversions(plan: Plan, graph: CostGraph, segment: int) -> tuple[str, ...]:
    """Name the tensors whose layout a segment changes: on the way in, inside, or on the way out."""
    inside = {graph.atom_index[atom] for atom in plan.segments[segment].atoms}
    changed = []
    for index, tensor in enumerate(graph.tensors):
        source = graph.producer[index]
        readers = [user for user in graph.consumers[index] if user in inside]
        forms = {tensor.form(plan.flows[graph.atoms[user].id].reads) for user in readers}
        made_here = source is not None and source in inside
        if made_here:
            assert source is not None
            forms.add(tensor.form(plan.flows[graph.atoms[source].id].writes))
        if tensor.id in plan.layouts and (readers or made_here):
            forms.add(plan.layouts[tensor.id])
        if len(forms) > 1:
            changed.append(tensor.id)
    return tuple(changed)
