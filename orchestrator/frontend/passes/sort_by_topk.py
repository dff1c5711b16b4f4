"""Writes `sort` as `topk` of all elements, for which ExecuTorch has a kernel.

Both put NaN above all numbers. Which of equal elements comes first is left open by both, so sorts
that are to be stable stay.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, rewrite_each
from orchestrator.frontend.passes.caller import Caller, arguments_of

aten = torch.ops.aten

_BOTH = {aten.sort.default, aten.sort.stable}
_PLACES = {aten.argsort.default, aten.argsort.stable}
_VALUES = {aten.msort.default}


def sort_by_topk(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without sorts, but for stable ones and those of numbers or bools.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _is_sort, _rewrite)


def _is_sort(node: Node) -> bool:
    if node.target not in _BOTH | _PLACES | _VALUES or arguments_of(node).get("stable"):
        return False
    source = node.args[0]
    if not isinstance(source, Node):
        return False
    value: torch.Tensor = source.meta["val"]
    return value.dim() > 0 and value.dtype != torch.bool


def _rewrite(editor: ProgramEditor, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    arguments = arguments_of(node)
    dim = arguments.get("dim", 0)  # msort has none
    descending = bool(arguments.get("descending"))
    call = Caller(editor.graph, node)
    count: Any = source.meta["val"].shape[dim]
    if not isinstance(count, int):
        count = call(aten.sym_size.int, source, dim)
    found = call(aten.topk.default, source, count, dim, descending)
    found.meta["val"] = tuple(found.meta["val"])
    if node.target not in _BOTH:
        found = call(operator.getitem, found, 1 if node.target in _PLACES else 0)
    editor.replace(node, found)
