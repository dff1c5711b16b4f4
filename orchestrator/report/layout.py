"""Where the atoms of a method go in a drawing: layers from top to bottom.

Longest-path layering (Healy, Nikolov, "Hierarchical Drawing Algorithms", 2013): an atom stands
one layer below its lowest producer, so that every edge points down. Within a layer, atoms are
ordered by where their neighbours stand (the barycentre heuristic of Sugiyama, 1981), down and up
again, which keeps edges short. All of it is linear in the edges, apart from sorting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import networkx as nx

from orchestrator.report.data import MethodReport

_SWEEPS = 4


@dataclass(frozen=True)
class Layout:
    """A drawing's grid.

    places: by atom id, its layer (from 0) and its column, which may be half of one.
    layers, columns: the grid's size.
    """

    places: Mapping[str, tuple[int, float]]
    layers: int
    columns: float


def lay_out(method: MethodReport) -> Layout:
    """Place the atoms of a method; those on a cycle of edges (from a damaged file) go on top."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(atom.id for atom in method.atoms)
    graph.add_edges_from(
        (edge.producer, consumer)
        for edge in method.edges
        for consumer in edge.consumers
        if edge.producer in graph and consumer in graph
    )
    layer = _layers(graph)
    rows: list[list[str]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for name in graph:
        rows[layer[name]].append(name)
    column = _order(rows, graph)
    widest = max(map(len, rows), default=0)
    return Layout({name: (layer[name], column[name]) for name in graph}, len(rows), widest)


def _layers(graph: nx.DiGraph[str]) -> dict[str, int]:
    """By atom, the length of the longest path to it; sources sit right above their readers."""
    layer = dict.fromkeys(graph, 0)
    with contextlib.suppress(nx.NetworkXUnfeasible):  # raised behind what is on no cycle
        for number, names in enumerate(nx.topological_generations(graph)):
            layer.update(dict.fromkeys(names, number))
    for name in graph:
        if not graph.pred[name] and graph.succ[name]:
            layer[name] = max(0, min(layer[after] for after in graph.succ[name]) - 1)
    return layer


def _order(rows: list[list[str]], graph: nx.DiGraph[str]) -> dict[str, float]:
    widest = max(map(len, rows), default=0)
    column: dict[str, float] = {}

    def center_row(row: list[str]) -> None:
        start = (widest - len(row)) / 2
        column.update({name: start + index for index, name in enumerate(row)})

    for row in rows:
        center_row(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = graph.pred if down else graph.succ

            def center(name: str, near: Mapping[str, Collection[str]] = near) -> float:
                places = [column[other] for other in near[name]]
                return sum(places) / len(places) if places else column[name]

            row.sort(key=center)
            center_row(row)
    return column
