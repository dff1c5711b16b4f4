"""Writes seeds for the fuzz targets: one small program for each op that has a rule.

Usage: python -m fuzz.seeds FOLDER; makes FOLDER/ir and FOLDER/pte.
"""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import networkx as nx

from ggml_delegate import ir
from ggml_delegate.torch_speed import repeated_work_spared
from orchestrator.planner import CostGraph, Plan, Segment, price_plan, split_into_segments
from tests.differential.generate import random_graph, targets
from tests.differential.graphs import Graph
from tests.differential.plans import export_graphs, lower_plans, only

DYNAMIC = 12
WHOLE_FILES = 12


def one_call_each(graph: CostGraph) -> Plan:
    """Everything on ggml that can be, with a call of its own for each connected part."""
    assignment = only("ggml")(graph).assignment
    links: nx.Graph[str] = nx.Graph()
    links.add_nodes_from(atom.id for atom in graph.atoms if assignment[atom.id] == "ggml")
    for index, readers in enumerate(graph.succs):
        for reader in readers:
            pair = graph.atoms[index].id, graph.atoms[reader].id
            if all(atom in links for atom in pair):
                links.add_edge(*pair)
    part_of = {
        atom: number for number, part in enumerate(nx.connected_components(links)) for atom in part
    }
    segments: list[Segment] = []
    for segment in split_into_segments(graph, assignment):
        parts: dict[int, list[str]] = {}
        for atom in segment.atoms:
            parts.setdefault(part_of.get(atom, -1), []).append(atom)
        segments += [
            Segment(segment.backend, tuple(atoms), segment.is_delegate) for atoms in parts.values()
        ]
    return price_plan(graph, segments, solver="parts")


def write_ir(folder: Path, graphs: list[Graph], name: str) -> int:
    """Writes the IR of each delegate call; returns how many there were.

    A graph that cannot be lowered costs only itself and is told: a fault to be looked at, but none
    of the runtime.
    """
    try:
        return _write_all(folder, graphs, name)
    except Exception as error:
        if len(graphs) == 1:
            ops = ", ".join(step.op for step in graphs[0].steps)
            print(f"cannot lower {ops}: {type(error).__name__}: {error}")
            return 0
    middle = len(graphs) // 2
    halves = (graphs[:middle], graphs[middle:])
    return sum(write_ir(folder, half, f"{name}_{part}") for part, half in enumerate(halves))


def _write_all(folder: Path, graphs: list[Graph], name: str) -> int:
    made: list[bytes] = []
    serialize = ir.serialize

    def noted(program: Any) -> bytes:
        made.append(serialize(program))
        return made[-1]

    with mock.patch("ggml_delegate.preprocess.ir.serialize", noted):
        lower_plans(export_graphs(graphs), {"parts": one_call_each})
    for number, data in enumerate(made):
        (folder / f"{name}_{number}").write_bytes(data)
    return len(made)


def main() -> None:
    """Runs the command."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    rng = random.Random(0)
    for kind in ("ir", "pte"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with repeated_work_spared():
        names = list(dict.fromkeys(targets()))
        unseeded: list[str] = []
        count = 0
        for start in range(0, len(names), 32):
            chosen = []
            for name in names[start : start + 32]:
                try:
                    chosen.append(random_graph(rng, target=name))
                except LookupError:  # an op that reads no tensor gives no graph worth comparing
                    unseeded.append(name)
            count += write_ir(folder / "ir", chosen, f"ops_{start}")
        dynamic = [random_graph(rng, dynamic=True) for _ in range(DYNAMIC)]
        count += write_ir(folder / "ir", dynamic, "dynamic")
        for number in range(WHOLE_FILES):
            graphs = [random_graph(rng, dynamic=number % 4 == 0) for _ in range(2)]
            data = lower_plans(export_graphs(graphs), {"forward": only("ggml")})
            (folder / "pte" / f"{number}.pte").write_bytes(data)
    print(f"{count} seeds of IR, {WHOLE_FILES} of whole files in {folder}")
    if unseeded:
        print(f"no seed with {', '.join(unseeded)}")


if __name__ == "__main__":
    main()
