"""Errors by op, noted while the op tests run; `tools/accuracy.py` makes a table of them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from ggml_delegate.node_view import op_name
from ggml_delegate.registry import find_rule

# By op: (relative error, what the test allows) of each comparison.
_noted: dict[str, list[tuple[float, float]]] = defaultdict(list)


def note(op: str, error: float, allowed: float) -> None:
    """Remember one comparison of an op's result with eager."""
    _noted[op].append((error, allowed))


def append_to(path: Path) -> None:
    """Add what this process noted to a file, a JSON object per line; several processes may."""
    lines = (
        json.dumps({"op": op, "error": error, "allowed": allowed}) + "\n"
        for op, found in _noted.items()
        for error, allowed in found
    )
    with path.open("a") as file:
        file.write("".join(lines))


def output_ops(program: ExportedProgram) -> list[str]:
    """By output of an edge-dialect program, the op that it comes from.

    Ops that only move elements are looked through: their results are as exact as what they move.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    return [
        _op_of(nodes[spec.arg.name])
        for spec in program.graph_signature.output_specs
        if spec.kind is OutputKind.USER_OUTPUT and spec.arg.name in nodes
    ]


def _op_of(node: torch.fx.Node) -> str:
    while True:
        rule = find_rule(node)
        moves = node.op == "call_function" and (
            rule is None or type(rule).__module__ == "ggml_delegate.ops.shape"
        )
        source = node.args[0] if moves and node.args else None
        if not isinstance(source, torch.fx.Node) or source.op != "call_function":
            return op_name(node) or node.name
        node = source
