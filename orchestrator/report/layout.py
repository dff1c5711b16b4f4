"""Where the atoms of a method go in a drawing: layers from top to bottom.

Longest-path layering (Healy, Nikolov, "Hierarchical Drawing Algorithms", 2013): an atom stands
one layer below its lowest producer, so that every edge points down. Within a layer, atoms are
ordered by where their neighbours stand (the barycentre heuristic of Sugiyama, 1981), down and up
again, which keeps edges short. All of it is linear in the edges, apart from sorting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """Place the atoms of a method; of contradictory edges (from a damaged file) some count."""
    names = [atom.id for atom in method.atoms]
    preds: dict[str, list[str]] = {name: [] for name in names}
    succs: dict[str, list[str]] = {name: [] for name in names}
    for edge in method.edges:
        for consumer in edge.consumers:
            if edge.producer in succs and consumer in preds:
                preds[consumer].append(edge.producer)
                succs[edge.producer].append(consumer)
    layer = _layers(names, preds, succs)
    rows: list[list[str]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for name in names:
        rows[layer[name]].append(name)
    column = _order(rows, preds, succs)
    widest = max(map(len, rows), default=0)
    return Layout({name: (layer[name], column[name]) for name in names}, len(rows), widest)


def _layers(
    names: Sequence[str], preds: Mapping[str, list[str]], succs: Mapping[str, list[str]]
) -> dict[str, int]:
    """By atom, the length of the longest path to it; sources sit right above their readers."""
    layer = dict.fromkeys(names, 0)
    for name in _topological(names, preds, succs):
        layer[name] = 1 + max((layer[before] for before in preds[name]), default=-1)
    for name in names:
        if not preds[name] and succs[name]:
            layer[name] = min(layer[after] for after in succs[name]) - 1
    return layer


def _topological(
    names: Sequence[str], preds: Mapping[str, list[str]], succs: Mapping[str, list[str]]
) -> list[str]:
    waiting = {name: len(preds[name]) for name in names}
    ready = [name for name in names if not waiting[name]]
    for name in ready:  # grows while it is walked
        for after in succs[name]:
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return ready


def _order(
    rows: list[list[str]], preds: Mapping[str, list[str]], succs: Mapping[str, list[str]]
) -> dict[str, float]:
    widest = max(map(len, rows), default=0)
    column: dict[str, float] = {}

    def settle(row: list[str]) -> None:
        start = (widest - len(row)) / 2
        column.update({name: start + index for index, name in enumerate(row)})

    for row in rows:
        settle(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = preds if down else succs

            def center(name: str, near: Mapping[str, list[str]] = near) -> float:
                places = [column[other] for other in near[name]]
                return sum(places) / len(places) if places else column[name]

            row.sort(key=center)
            settle(row)
    return column
