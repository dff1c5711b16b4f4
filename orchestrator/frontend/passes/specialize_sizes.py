"""Writes sizes that turned out to be fixed as numbers.

`Dim.AUTO` leaves it to torch.export whether a size is dynamic. Where the model fixes it (a
convolution's channels), the example's fake tensor still has a symbol there, which stands for one
number. Backends take it for dynamic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from ggml_delegate.program_editor import ProgramEditor


def specialize_sizes(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which a size is a symbol only if it is dynamic.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    values = [node.meta.get("val") for node in program.graph.nodes]
    if not any(_is_fixed(leaf) for value in values for leaf in pytree.tree_leaves(value)):
        return program
    editor = ProgramEditor(program)
    for node in editor.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map(_specialized, node.meta["val"])
    return editor.finish()


def _is_fixed(value: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    return any(
        isinstance(size, torch.SymInt) and isinstance(_number(size), int) for size in value.shape
    )


def _number(size: int | torch.SymInt) -> int | torch.SymInt:
    """The number that a size, or a stride, is in any case, else the size itself."""
    known = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else None
    return size if known is None else known


def _specialized(value: Any) -> Any:
    if not _is_fixed(value):
        return value
    sizes, strides = ([_number(each) for each in them] for them in (value.shape, value.stride()))
    with value.fake_mode:
        return value.new_empty_strided(sizes, strides)
