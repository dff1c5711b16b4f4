"""Writes parts of tensors whose place is a number known at run time only, by tensors of positions.

`table.narrow(0, pos.item(), n)`, `table[i : i + n]` and `table[i]` with `i = pos.item()` become an
`index_select`, and what is assigned to such a part an `index_put`. ExecuTorch's export for LLMs
reads its tables of sines and its masks so, and some models write their caches so.
"""

from __future__ import annotations

import operator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, is_written
from ggml_delegate.symbols import lower_bound
from orchestrator.frontend.passes.caller import Caller, arguments_of
from orchestrator.frontend.passes.positions import Positions, is_read_from_tensors, value_of

aten = torch.ops.aten

_PARTS = {aten.narrow.default, aten.slice.Tensor, aten.select.int}
# Ops of a tensor and a number, by which places are computed and compared, and those of two tensors.
_OF_NUMBERS = {
    aten.add.Tensor: aten.add.Tensor,
    **{
        getattr(aten, name).Scalar: getattr(aten, name).Tensor
        for name in ("eq", "ge", "gt", "le", "lt", "ne")
    },
}


def place_moving_parts(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which no place of a part is a number that a tensor held.

    Places below 0, which count from the end, are left alone, and so are parts that are views of
    what is written otherwise.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    if not any(_moves(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    positions = Positions(editor.graph)
    for node in [node for node in editor.graph.nodes if _moves(node)]:
        positions.note(_start(node))
        if node.target in _OF_NUMBERS:
            _compute(editor, positions, node)
        elif is_written(node):
            _put(editor, positions, node)
        else:
            _select(editor, positions, node)
        editor.graph.erase_node(node)
    positions.forget_unread()
    return editor.finish()


def _moves(node: Node) -> bool:
    """Whether a node takes a part, or computes places, by a number that can be a tensor instead."""
    if node.target not in _PARTS and node.target not in _OF_NUMBERS:
        return False
    start = _start(node)
    if not isinstance(start, Node) or not is_read_from_tensors(start):
        return False
    if lower_bound(start.meta["val"]) < 0:
        return False
    if node.target in _OF_NUMBERS:
        value = _tensor(node).meta["val"]
        return value.dtype == torch.int64 and value.dim() > 0 and not node.kwargs
    if _length(node) is None:
        return False
    if is_written(node):
        return all(_is_assignment(user, node) for user in node.users)
    return not is_written(_owner(node))


def _start(node: Node) -> object:
    if node.target in _OF_NUMBERS:
        return node.args[1]
    given = arguments_of(node)
    return given["index" if node.target is aten.select.int else "start"]


def _tensor(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def _length(node: Node) -> int | Node | None:
    """How much along its dim a part takes; None where the end of the tensor may shorten it."""
    given = arguments_of(node)
    if node.target is aten.select.int:
        return 1
    if node.target is aten.narrow.default:
        length: int | Node = given["length"]
        return length
    end = given["end"]
    if given["step"] != 1 or not isinstance(end, Node) or end.target is not operator.add:
        return None
    lengths = [each for each in end.args if each is not given["start"]]
    if len(lengths) != 1 or not isinstance(lengths[0], (int, Node)):
        return None
    size = node.meta["val"].shape[given["dim"]]
    return lengths[0] if str(size) == str(value_of(lengths[0])) else None


def _is_assignment(user: Node, part: Node) -> bool:
    """Whether all that a node does is to copy a tensor of as many dims to a part."""
    if user.target is not aten.copy_.default or user.args[0] is not part or user.users:
        return False
    source = user.args[1]
    return isinstance(source, Node) and source.meta["val"].dim() == part.meta["val"].dim()


def _owner(node: Node) -> Node:
    """The tensor that a node gives a view of, perhaps by way of others."""
    while isinstance(node.target, torch._ops.OpOverload):
        arguments = node.target._schema.arguments
        source = node.args[0] if node.args else None
        if not arguments or arguments[0].alias_info is None or not isinstance(source, Node):
            break
        node = source
    return node


def _rows(call: Caller, positions: Positions, node: Node) -> Node:
    length = _length(node)
    assert length is not None
    return positions.rows(call, _start(node), length)


def _dim(node: Node) -> int:
    dim: int = arguments_of(node)["dim"]
    rank: int = _tensor(node).meta["val"].dim()
    return dim % rank


def _compute(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    op = _OF_NUMBERS[node.target]
    with editor.graph.inserting_before(node):
        call = Caller(editor.graph, node)
        editor.replace(node, call(op, node.args[0], positions.first(call, _start(node))))


def _select(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    with editor.graph.inserting_before(node):
        call = Caller(editor.graph, node)
        part = call(
            aten.index_select.default, node.args[0], _dim(node), _rows(call, positions, node)
        )
        if node.target is aten.select.int:
            part = call(aten.squeeze.dim, part, _dim(node))
        editor.replace(node, part)


def _put(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    for assignment in list(node.users):
        values = assignment.args[1]
        assert isinstance(values, Node)
        with editor.graph.inserting_before(assignment):
            call = Caller(editor.graph, assignment, node)
            if values.meta["val"].dtype != node.meta["val"].dtype:
                values = call(aten.to.dtype, values, node.meta["val"].dtype)
            if node.target is aten.select.int:
                values = call(aten.unsqueeze.default, values, _dim(node))
            places = [None] * _dim(node) + [_rows(call, positions, node)]
            call(aten.index_put_.default, node.args[0], places, values)
        editor.graph.erase_node(assignment)
