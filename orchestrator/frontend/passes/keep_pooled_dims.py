"""Writes global average pooling in the one form that every backend knows.

`x.mean((2, 3))` and `x.mean((2, 3), keepdim=True)` compute the same numbers, but XNNPACK's global
average pooling, for one, takes only the second. The first becomes the second and a view.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, named_arguments

aten = torch.ops.aten


def keep_pooled_dims(program: ExportedProgram) -> ExportedProgram:
    """Returns a program whose means over height and width keep these dims as 1 until a view.

    Args:
        program: ATen-dialect program, before or after `run_decompositions()`; it is left as it was.
    """
    if not any(_drops_pooled_dims(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in [node for node in editor.graph.nodes if _drops_pooled_dims(node)]:
        _keep_dims(editor, node)
    return editor.finish()


def _drops_pooled_dims(node: Node) -> bool:
    """Whether `node` is a mean of [batch, channels, height, width] over the last two dims only.

    Channels of dynamic number are left alone: a view can infer one size, and that is the batch's.
    """
    if node.target is not aten.mean.dim:
        return False
    arguments = named_arguments(node)
    source, dims = arguments["self"], arguments["dim"]
    if arguments.get("keepdim", False) or arguments.get("dtype") is not None:
        return False
    assert isinstance(source, Node)
    value = source.meta["val"]
    if value.dim() != 4 or not isinstance(value.shape[1], int) or not isinstance(dims, list):
        return False
    return sorted(int(str(dim)) % 4 for dim in dims) == [2, 3]


def _keep_dims(editor: ProgramEditor, node: Node) -> None:
    source, value = node.args[0], node.meta["val"]
    assert isinstance(source, Node)
    batch, channels = value.shape
    inferred = batch if isinstance(batch, int) else -1
    with editor.graph.inserting_before(node):
        pooled = editor.graph.call_function(aten.mean.dim, (source, [2, 3], True))
        flat = editor.graph.call_function(aten.view.default, (pooled, [inferred, channels]))
    for new, meta in ((pooled, value[:, :, None, None]), (flat, value)):
        new.meta = {k: v for k, v in node.meta.items() if k != "torch_fn"} | {"val": meta}
    pooled.meta.pop("tensor_meta", None)
    editor.replace(node, flat)
    editor.graph.erase_node(node)
