"""Splitting by capability: every atom goes to the first backend in the user's order that takes it.

This uses no costs. It is the baseline, and the plan while nothing is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import networkx as nx

from orchestrator.planner import (
    Constraints,
    CostGraph,
    Plan,
    greedy,
    price_plan,
    split_into_segments,
)
from orchestrator.planner.constraints import allowed_options


def split_by_capability(
    graph: CostGraph,
    constraints: Constraints | None = None,
    order: Sequence[str] | None = None,
) -> Plan:
    """Return a legal plan in which no delegate call carries views that feed nothing in it.

    constraints: their pins, excludes and refused calls; limits on the whole are not looked at.
        order: of the backends; the graph's if left out.

    A call that merges independent parts of the graph may hold parts that are views alone. They
    cost a copy in and a copy out there, and nothing on ExecuTorch's kernels.
    """
    constraints = constraints or Constraints()
    names = [backend.name for backend in graph.backends]
    if order is not None:
        order = [*order, *(name for name in names if name not in order)]
    allowed = {
        atom.id: {names[option.backend] for option in options}
        for atom, options in zip(graph.atoms, allowed_options(graph, constraints), strict=True)
    }
    plan = greedy(graph, order, allowed=allowed)
    while True:
        moved = {
            atom: kernels
            for segment in plan.partitions
            for part in _connected_parts(graph, segment.atoms)
            if (kernels := _kernels_for_views(graph, part, allowed)) is not None
            for atom in part
        }
        if not moved:
            break
        segments = split_into_segments(graph, {**plan.assignment, **moved})
        plan = price_plan(graph, segments, solver=plan.solver)
    return plan if constraints.calls is None else constraints.calls.taken_apart(graph, plan)


def _connected_parts(graph: CostGraph, atoms: Collection[str]) -> Iterator[set[str]]:
    inside = set(atoms)
    links: nx.Graph[str] = nx.Graph()
    links.add_nodes_from(atoms)
    for atom in atoms:
        readers = (graph.atoms[succ].id for succ in graph.succs[graph.atom_index[atom]])
        links.add_edges_from((atom, reader) for reader in readers if reader in inside)
    return iter(nx.connected_components(links))


def _kernels_for_views(
    graph: CostGraph, part: Collection[str], allowed: Mapping[str, Collection[str]]
) -> str | None:
    """Name kernels that can take a part of views alone; None if it computes or needs a delegate."""
    if not all(graph.atoms[graph.atom_index[atom]].trivial for atom in part):
        return None
    return next(
        (
            backend.name
            for backend in graph.backends
            if not backend.is_delegate and all(backend.name in allowed[atom] for atom in part)
        ),
        None,
    )
