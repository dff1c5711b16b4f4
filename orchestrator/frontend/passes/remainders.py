"""Remainders of integers, in tensors and among sizes, have the sign of the divisor.

ExecuTorch computes them as C does, with the sign of the dividend.
"""

from __future__ import annotations

import operator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, rewrite_each

_as_it_is: ContextVar[bool] = ContextVar("as_it_is", default=False)


def remainder(x: Tensor | float, y: Tensor | float) -> Any:
    """What `aten.remainder` gives, for `write_out`; NotImplemented where its kernel gives that.

    What the kernel gives of integers may want one y more. Large integers meet no other op here:
    products and differences of them a delegate might take, which counts in 32 bits.
    """
    if _as_it_is.get():
        return NotImplemented
    dtype = torch.result_type(x, y)
    if isinstance(x, Tensor) and not is_signed_integer(dtype):
        return NotImplemented
    token = _as_it_is.set(True)
    try:
        dividend = x if isinstance(x, Tensor) else torch.full((), x, dtype=dtype)
        rest = torch.remainder(dividend, y)
    finally:
        _as_it_is.reset(token)
    if not is_signed_integer(dtype):
        return rest
    return torch.where(_is_beyond_zero(rest, y), rest + y, rest)


def is_signed_integer(dtype: torch.dtype) -> bool:
    """Whether remainders of this dtype can be negative, and are computed in integers."""
    return dtype.is_signed and not dtype.is_floating_point


def _is_beyond_zero(rest: Tensor, y: Tensor | float | torch.SymInt) -> Tensor:
    """Where a remainder is not zero, and has not the sign of what it was divided by."""
    if isinstance(y, int | float):
        return rest < 0 if y > 0 else rest > 0
    if isinstance(y, torch.SymInt):
        y = torch.full((), y, dtype=torch.int64)  # type: ignore[call-overload]  # takes sizes
    return (rest != 0) & ((rest < 0) != (y < 0))


def modulo_of_sizes(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which `a % b` is `a - a // b * b` where a or b may be negative.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _may_differ, _write)


def _may_differ(node: Node) -> bool:
    if node.op != "call_function" or node.target is not operator.mod:
        return False
    return any(_may_be_negative(each) for each in node.args)


def _may_be_negative(argument: Any) -> bool:
    value = argument.meta.get("val") if isinstance(argument, Node) else argument
    if isinstance(value, torch.SymInt):
        known: Any = value.node.shape_env.bound_sympy(value.node.expr)
        return bool(known.lower < 0)
    return isinstance(value, int) and value < 0


def _write(editor: ProgramEditor, node: Node) -> None:
    dividend, divisor = node.args
    quotient = _call(editor, node, operator.floordiv, dividend, divisor)
    multiple = _call(editor, node, operator.mul, quotient, divisor)
    rest = _call(editor, node, operator.sub, dividend, multiple)
    rest.meta["val"] = node.meta["val"]
    editor.replace(node, rest)


def _call(editor: ProgramEditor, instead_of: Node, target: Any, *args: Any) -> Node:
    made = editor.graph.call_function(target, args)
    values = [each.meta["val"] if isinstance(each, Node) else each for each in args]
    made.meta = {**instead_of.meta, "val": target(*values)}
    return made
