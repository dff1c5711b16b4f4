"""Having a plan's delegate calls be ones that their backends can lower.

Backends say of nodes one by one what they take, and of the nodes of a call what cannot be together
(`Backend.check_segment`). A call that cannot be is taken apart; a node that cannot be in any call
goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from orchestrator.backends import Backend
from orchestrator.backends.candidates import Candidates
from orchestrator.planner import Constraints, CostGraph, Exclude, Plan, Segment, price_plan

# Plans that are made anew without the nodes that cannot be in any call.
_MOST_ROUNDS = 20


def plan_what_lowers(
    graph: CostGraph,
    candidates: Candidates,
    backends: Sequence[Backend],
    constraints: Constraints,
    solve: Callable[[Constraints], Plan],
) -> Plan:
    """Return a plan whose calls all pass their backend's `check_segment`.

    solve: makes a plan within constraints.

    Raises:
        PlannerError: from `solve`, where nothing else can run a node.
    """
    by_name = {backend.name: backend for backend in backends}

    def reason(segment: Segment, atoms: Sequence[str]) -> str | None:
        return by_name[segment.backend].check_segment(list(candidates.nodes(atoms)))

    for _ in range(_MOST_ROUNDS):
        plan = solve(constraints)
        lone = [
            (each.backend, atom, text)
            for each in plan.partitions
            if reason(each, each.atoms) is not None
            for atom in each.atoms
            if (text := reason(each, [atom])) is not None
        ]
        if not lone:
            return _taken_apart(graph, plan, reason)
        excludes = [Exclude(f"{text} ({name})", (atom,), (name,)) for name, atom, text in lone]
        constraints = replace(constraints, excludes=(*constraints.excludes, *excludes))
    raise AssertionError(f"no plan that lowers in {_MOST_ROUNDS} rounds: {lone[0]}")


def _taken_apart(
    graph: CostGraph, plan: Plan, reason: Callable[[Segment, Sequence[str]], str | None]
) -> Plan:
    """Split calls in as few as pass, each as long as it can be, in the order of their atoms."""
    segments: list[Segment] = []
    notes = []
    for segment in plan.segments:
        text = reason(segment, segment.atoms) if segment.is_delegate else None
        parts = [segment.atoms] if text is None else list(_parts(segment, reason))
        segments += [replace(segment, atoms=part) for part in parts]
        if text is not None:
            what = f"A call of {segment.backend} with {len(segment.atoms)} ops"
            notes.append(f"{what} is {len(parts)}: {text}.")
    if not notes:
        return plan
    apart = price_plan(graph, segments, solver=plan.solver, flows=plan.flows)
    return replace(apart, lower_bound_ns=plan.lower_bound_ns, notes=plan.notes).noting(*notes)


def _parts(
    segment: Segment, reason: Callable[[Segment, Sequence[str]], str | None]
) -> Iterator[tuple[str, ...]]:
    part: tuple[str, ...] = ()
    for atom in segment.atoms:
        if part and reason(segment, (*part, atom)) is not None:
            yield part
            part = ()
        part = (*part, atom)
    yield part
