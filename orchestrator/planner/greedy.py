"""The baseline: backends in the given order take whatever they can, as ExecuTorch would do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from .cost_graph import CostGraph
from .errors import InfeasibleAtomError
from .legality import split_into_segments
from .plan import Plan, Segment
from .pricing import price_plan


def greedy_assignment(
    graph: CostGraph,
    order: Sequence[str] | None = None,
    allowed: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Give each atom (id) to the first backend (name) in the order that can run it.

    order: default is the graph's. allowed: backends by atom id where not all are; from constraints.

    Raises InfeasibleAtomError naming the first atom that nothing can take.
    """
    names = list(order) if order is not None else [backend.name for backend in graph.backends]
    assignment = {}
    for index in graph.order:
        atom = graph.atoms[index].id
        permitted = (
            names if allowed is None else [n for n in names if n in allowed.get(atom, names)]
        )
        taker = next((name for name in permitted if graph.capable(atom, name)), None)
        if taker is None:
            raise InfeasibleAtomError(
                f"no backend can run the atom {atom!r}: asked {permitted}. "
                "Add a backend that can, such as ExecuTorch's own kernels."
            )
        assignment[atom] = taker
    return assignment


def greedy(
    graph: CostGraph,
    order: Sequence[str] | None = None,
    *,
    allowed: Mapping[str, Collection[str]] | None = None,
    drop_trivial: bool = True,
) -> Plan:
    """The plan by capability in list order, made legal. Costs may all be unknown: none is used.

    order: default is the graph's order of backends. drop_trivial: move segments that carry only
    trivial atoms, see `drop_trivial_segments`.

    Raises InfeasibleAtomError naming an atom that nothing can take.
    """
    assignment = greedy_assignment(graph, order, allowed)
    if drop_trivial:
        assignment = drop_trivial_segments(graph, assignment, allowed)
    return price_plan(graph, split_into_segments(graph, assignment), solver="greedy")


def drop_trivial_segments(
    graph: CostGraph,
    assignment: Mapping[str, str],
    allowed: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Reassign the atoms of delegate segments in which every atom is trivial.

    They join the backend of most of their neighbours that can take them all, and else the first
    backend without calls that can; if there is none they stay. A change that would make more
    delegate calls is not made.
    """
    current = dict(assignment)
    segments = split_into_segments(graph, current)
    for segment in [part for part in segments if part.is_delegate and _is_trivial(graph, part)]:
        for taker in _takers(graph, segment, current, allowed):
            moved = {**current, **dict.fromkeys(segment.atoms, taker)}
            split = split_into_segments(graph, moved)
            if _calls(split) < _calls(segments):
                current, segments = moved, split
                break
    return current


def _calls(segments: Sequence[Segment]) -> int:
    return sum(segment.is_delegate for segment in segments)


def _is_trivial(graph: CostGraph, segment: Segment) -> bool:
    return all(graph.atoms[graph.atom_index[atom]].trivial for atom in segment.atoms)


def _takers(
    graph: CostGraph,
    segment: Segment,
    assignment: Mapping[str, str],
    allowed: Mapping[str, Collection[str]] | None,
) -> list[str]:
    """Backends to try instead: those around by number of neighbours, then those without calls."""
    inside = {graph.atom_index[atom] for atom in segment.atoms}
    around = {n for i in inside for n in (*graph.preds[i], *graph.succs[i])} - inside
    votes = Counter(assignment[graph.atoms[index].id] for index in sorted(around))
    names = [name for name, _ in votes.most_common()]
    names += [backend.name for backend in graph.backends if not backend.is_delegate]
    return [
        name
        for name in dict.fromkeys(names)
        if name != segment.backend
        and all(graph.capable(atom, name) for atom in segment.atoms)
        and (allowed is None or all(name in allowed.get(atom, names) for atom in segment.atoms))
    ]
