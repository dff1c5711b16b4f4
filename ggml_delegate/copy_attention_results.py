"""Keeps reshapes of attention's results valid however attention is carried out.

torch's kernel gives scaled_dot_product_attention a result whose heads lie side by side, so that
merging them is a view. Preserved through ExecuTorch's decompositions, the op promises nothing of
the kind, and the view becomes an error. A copy in between holds either way.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor

aten = torch.ops.aten

_ATTENTION = aten.scaled_dot_product_attention.default
_REORDERS = {aten.transpose.int, aten.permute.default, aten.swapaxes.default}
_NEEDS_STRIDES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.contiguous.default,
}


def copy_attention_results(program: ExportedProgram) -> ExportedProgram:
    """Returns a program with copies before such reshapes; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(node.target is _ATTENTION for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in list(editor.graph.nodes):
        if node.target is _ATTENTION:
            for source, reshape in _reshapes(node):
                with editor.graph.inserting_before(reshape):
                    copy = editor.graph.call_function(
                        aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
                    )
                copy.meta = dict(source.meta)
                copy.meta["val"] = source.meta["val"].contiguous()
                reshape.replace_input_with(source, copy)
    return editor.finish()


def _reshapes(node: Node) -> list[tuple[Node, Node]]:
    """(input, reshape) pairs that read `node`, or what becomes of it by reordering."""
    found = []
    for user in node.users:
        if user.target in _REORDERS:
            found += _reshapes(user)
        elif user.target in _NEEDS_STRIDES:
            found.append((node, user))
    return found
