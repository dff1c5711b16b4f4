"""Computes in float32 what combines a tensor of half precision with a number.

ExecuTorch's edge dialect (1.5.1) makes a tensor of each number. It has the half type, which rounds
it, where PyTorch multiplies and divides by the number as it is; and it is float32 where the other
tensor has no dimensions, and the result then float32 as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.aten_ops import Trait, traits
from ggml_delegate.program_editor import ProgramEditor, rewrite_each
from ggml_delegate.registry import HALF_DTYPES
from orchestrator.frontend.passes.caller import Caller
from orchestrator.graph.queries import op_name

aten = torch.ops.aten

_OPS = frozenset(
    getattr(getattr(aten, name), overload)
    for name in ("add", "sub", "rsub", "mul", "div")
    for overload in ("Tensor", "Scalar")
)


def half_numbers(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which no number changes when it becomes a tensor of a half type.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _changes_a_number, _widen)


def _changes_a_number(node: Node) -> bool:
    if node.target not in _OPS or node.meta["val"].dtype not in HALF_DTYPES:
        return False
    tensor, number = node.args[:2]
    if not isinstance(tensor, Node) or not isinstance(number, (int, float)):
        return False
    if tensor.meta["val"].dim() == 0:
        return True
    return not _rounds(node) and _in(number, node.meta["val"].dtype) != number


def _widen(editor: ProgramEditor, node: Node) -> None:
    tensor, number, *more = node.args
    assert isinstance(number, (int, float))
    dtype = node.meta["val"].dtype
    call, target = Caller(editor.graph, node), node.target
    assert isinstance(target, torch._ops.OpOverload)
    wide = call(aten._to_copy.default, tensor, dtype=torch.float32)
    given: tuple[Any, ...] = (number, *more)
    if _rounds(node):
        given = tuple(_in(value, dtype) for value in given)
    result = call(target, wide, *given, **node.kwargs)
    editor.replace(node, call(aten._to_copy.default, result, dtype=dtype))


def _rounds(node: Node) -> bool:
    return bool(traits(op_name(node)) & Trait.ROUNDS_NUMBERS)


def _in(number: Any, dtype: torch.dtype) -> float:
    """The number as a half type has it."""
    return float(torch.tensor(number, dtype=torch.float64).to(dtype).item())
