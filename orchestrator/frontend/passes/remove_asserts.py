"""Removes checks of what is fixed: the dtype, device and layout of tensors.

Exporting writes one before each conversion. ExecuTorch removes them, but after programs were
rewritten: until then a weight that is converted seems to be read by more than the conversion, and
would be stored beside the result of it.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from ggml_delegate.program_editor import ProgramEditor

_ASSERT = torch.ops.aten._assert_tensor_metadata.default


def remove_asserts(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without checks of tensors' metadata; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(node.target == _ASSERT for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in [node for node in editor.graph.nodes if node.target == _ASSERT]:
        editor.graph.erase_node(node)
    return editor.finish()
