"""Removes conversions to the dtype that a tensor has: readers of a weight then read one tensor."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, is_written, named_arguments

aten = torch.ops.aten

_CONVERSIONS = {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other}


def remove_conversions(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without conversions that return their input; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(_does_nothing(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in [node for node in editor.graph.nodes if _does_nothing(node)]:
        source = node.args[0]
        assert isinstance(source, Node)
        editor.replace(node, source)
        editor.graph.erase_node(node)
    return editor.finish()


def _does_nothing(node: Node) -> bool:
    """Whether a conversion gives what it is given, and nothing changes one of them.

    An output needs a tensor of its own where the input is one of the program's inputs.
    """
    if node.target not in _CONVERSIONS or named_arguments(node).get("copy"):
        return False
    source = node.args[0]
    if not isinstance(source, Node) or is_written(node):
        return False
    if source.op == "placeholder" and any(user.op == "output" for user in node.users):
        return False
    given, made = (each.meta.get("val") for each in (source, node))
    return (
        isinstance(given, torch.Tensor)
        and isinstance(made, torch.Tensor)
        and (given.dtype, given.device, given.layout) == (made.dtype, made.device, made.layout)
        and given.stride() == made.stride()
    )
