"""Removes dropout that does nothing.

In eval mode dropout returns its input, but decomposes to a copy that every backend has to make.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, named_arguments

aten = torch.ops.aten

_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}


def remove_dropout(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without inference-mode dropout; `program` is left as it was.

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
    """Whether `node` is dropout in eval mode between two ops.

    An output needs a tensor of its own where the input is one of the program's inputs.
    """
    if node.target not in _DROPOUTS:
        return False
    arguments = named_arguments(node)
    source = arguments["input"]
    is_output = any(user.op == "output" for user in node.users)
    passes_through = isinstance(source, Node) and source.op == "placeholder" and is_output
    return not arguments["train"] and not passes_through
