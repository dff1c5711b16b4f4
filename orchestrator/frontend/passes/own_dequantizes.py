"""Gives every reader of a dequantized activation or weight a dequantize of its own.

A layer and its dequantizes go to a backend as one: layers that share a weight would all have to go
to the same. Of activations, XNNPACK's passes convert an image after its dequantize for one reader,
and hand what they converted to all: the others, which go on in the order before, fail when run.
PT2E has one for every reader that is quantized itself, but not for the others.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor
from orchestrator.graph.quantized import is_dequantize

_LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.embedding.default)


def own_dequantizes(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which readers share no dequantize; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(map(_is_shared, program.graph.nodes)):
        return program
    editor = ProgramEditor(program)
    for node in filter(_is_shared, list(editor.graph.nodes)):
        for reader in [user for user in node.users if user.op == "call_function"][1:]:
            with editor.graph.inserting_after(node):
                own = editor.graph.node_copy(node)
            reader.replace_input_with(node, own)
    return editor.finish()


def _is_shared(node: Node) -> bool:
    """Whether several layers read a weight, or nodes an activation of a fixed scale."""
    if not is_dequantize(node) or len(node.users) < 2:
        return False
    if all(source.op == "placeholder" for source in node.all_input_nodes):
        return all(user.target in _LAYERS for user in node.users)
    source = node.args[0]
    return isinstance(source, Node) and source.op == "call_function" and len(_nodes(node)) == 1


def _nodes(node: Node) -> list[Node]:
    return [each for each in node.args if isinstance(each, Node)]
