"""Writes `nonzero` as that of a flat tensor, whose positions are then taken apart.

PyTorch lays the result of `nonzero` out column by column, and ExecuTorch writes this dim order into
the program; its kernel writes row by row nevertheless, and forgets the number of columns when it
finds nothing. One column is the same both ways, and becomes a vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, rewrite_each
from orchestrator.frontend.passes.caller import Caller

aten = torch.ops.aten

_AS_ROWS = {aten.nonzero.default, aten.argwhere.default}
_BY_DIM = {aten.nonzero_numpy.default, aten.where.default}


def flatten_nonzero(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which every `nonzero` is of a tensor of rank 1, or of a number.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _is_nonzero, _flatten)


def _is_nonzero(node: Node) -> bool:
    if node.target not in _AS_ROWS | _BY_DIM:
        return False
    source = node.args[0]
    return isinstance(source, Node) and source.meta["val"].dim() > 0


def _flatten(editor: ProgramEditor, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    call = Caller(editor.graph, node)
    flat = call(aten.reshape.default, source, [-1])
    positions = call(aten.view.default, _nonzero_of(editor, flat, node), [-1])
    columns = _coordinates(call, source, positions)
    if node.target in _AS_ROWS:
        editor.replace(node, _side_by_side(call, columns))
    for item in list(node.users):  # getitem, if there are any left
        editor.replace(item, columns[int(str(item.args[1]))])
        editor.graph.erase_node(item)


def _nonzero_of(editor: ProgramEditor, flat: Node, node: Node) -> Node:
    """The nonzero elements of `flat`; how many keeps the symbol that sizes are written in."""
    found = editor.graph.call_function(aten.nonzero.default, (flat,))
    value = node.meta["val"] if node.target in _AS_ROWS else node.meta["val"][0]
    count = value.shape[0]
    found.meta = {key: item for key, item in node.meta.items() if key != "tensor_meta"}
    with value.fake_mode:
        found.meta["val"] = value.new_empty_strided((count, 1), (1, count))
    bindings = node.meta.get("unbacked_bindings", {})
    # The path to the size from a tensor, not from a list of them.
    found.meta["unbacked_bindings"] = {symbol: path[-2:] for symbol, path in bindings.items()}
    return found


def _coordinates(call: Caller, source: Node, positions: Node) -> list[Node]:
    """What positions in the flat `source` are along each of its dims."""
    columns: list[Node] = []
    for dim in range(source.meta["val"].dim() - 1, 0, -1):
        size: Any = source.meta["val"].shape[dim]
        if not isinstance(size, int):
            size = call(aten.sym_size.int, source, dim)
        columns.insert(0, call(aten.remainder.Scalar, positions, size))
        positions = call(aten.div.Scalar_mode, positions, size, rounding_mode="floor")
    return [positions, *columns]


def _side_by_side(call: Caller, columns: list[Node]) -> Node:
    """Columns as a matrix, by `where`: the kernel that concatenates loses its sizes if empty."""
    rows = call(aten.unsqueeze.default, columns[0], 1)
    for dim, column in enumerate(columns[1:], 1):
        numbers = call(aten.arange.default, len(columns))
        chosen = call(aten.eq.Scalar, numbers, dim)
        rows = call(aten.where.self, chosen, call(aten.unsqueeze.default, column, 1), rows)
    return rows
