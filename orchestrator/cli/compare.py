"""`orchestrator compare`: what differs between two programs."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from orchestrator.cli.output import add_json, print_json, print_table
from orchestrator.cli.parsers import Commands
from orchestrator.report.data import MethodReport, Report
from orchestrator.report.words import bytes_text, ops_text, time_text, wrapped

_DESCRIPTION = """Say what differs between two .pte files made by `orchestrator lower`: their sizes,
delegate calls, predicted and measured times, and which ops run elsewhere."""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compare", help="say what differs between two programs", description=_DESCRIPTION
    )
    parser.add_argument("first", type=Path, metavar="A.pte")
    parser.add_argument("second", type=Path, metavar="B.pte")
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print the differences."""
    from orchestrator.report.embed import read_report

    files = (options.first, options.second)
    reports = [read_report(file) for file in files]
    sizes = [file.stat().st_size for file in files]
    found = _difference(*reports)
    if options.json:
        print_json({"files": list(map(str, files)), "bytes": sizes, "methods": found})
        return
    heads = ("", "A", "B")
    rows = [("file size", *map(bytes_text, sizes))]
    for method in found:
        name = method["method"]
        rows += [
            (f"{name}: delegate calls", *map(str, method["calls"])),
            (f"{name}: nodes on kernels", *map(str, method["kernel_nodes"])),
            (f"{name}: predicted", *map(time_text, method["predicted_ns"])),
            (f"{name}: measured", *map(time_text, method["measured_ns"])),
        ]
    print(f"A {files[0]}\nB {files[1]}\n")
    print_table(heads, rows)
    for method in found:
        _print_moves(method)


def _print_moves(method: dict[str, Any]) -> None:
    print()
    if not method["moved"] and not method["only"]:
        print(f"{method['method']}: every node runs on the same backend in both")
    for move in method["moved"]:
        print(f"{method['method']}: {move['from']} in A, {move['to']} in B")
        print("\n".join(wrapped(ops_text(move["ops"]), "  ")))
    for name, nodes in method["only"].items():
        print("\n".join(wrapped(", ".join(nodes), f"{method['method']}: only in {name}: ")))


def _difference(first: Report, second: Report) -> list[dict[str, Any]]:
    others = {method.name: method for method in second.methods}
    own = {method.name: method for method in first.methods}
    names = dict.fromkeys([*own, *others])
    empty = MethodReport("")
    return [_methods(name, own.get(name, empty), others.get(name, empty)) for name in names]


def _methods(name: str, first: MethodReport, second: MethodReport) -> dict[str, Any]:
    pair = (first, second)
    backends = [_backend_by_node(method) for method in pair]
    ops = {node: op for atom in first.atoms for node, op in zip(atom.nodes, atom.ops, strict=True)}
    moves: dict[tuple[str, str], Counter[str]] = {}
    for node in backends[0].keys() & backends[1].keys():
        route = (backends[0][node], backends[1][node])
        if route[0] != route[1]:
            moves.setdefault(route, Counter())[ops.get(node, node)] += 1
    only = {
        "A": sorted(backends[0].keys() - backends[1].keys()),
        "B": sorted(backends[1].keys() - backends[0].keys()),
    }
    plans = [method.plan for method in pair]
    return {
        "method": name,
        "calls": [len(method.partitions) for method in pair],
        "kernel_nodes": [sum(method.kernels.values()) for method in pair],
        "predicted_ns": [plan and plan.predicted_ns for plan in plans],
        "measured_ns": [plan and plan.measured_ns for plan in plans],
        "moved": [
            {"from": source, "to": target, "ops": dict(counts)}
            for (source, target), counts in sorted(moves.items())
        ],
        "only": {side: nodes for side, nodes in only.items() if nodes},
    }


def _backend_by_node(method: MethodReport) -> dict[str, str]:
    return {node: segment.backend for segment in method.segments for node in segment.nodes}
