"""Writes `add` of a single element and a scaled tensor with a product of its own.

ExecuTorch's kernel (1.5.1) swaps the two where the first has one element, and then scales the wrong
one: `torch.add(x, y, alpha=3)` with a number x comes out as 3 x + y.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, rewrite_each
from orchestrator.frontend.passes.caller import Caller, arguments_of

aten = torch.ops.aten


def spell_out_alpha(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which no `add` whose first operand has one element scales the second.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _scales_the_larger, _spell_out)


def _spell_out(editor: ProgramEditor, node: Node) -> None:
    first, second = node.args
    call = Caller(editor.graph, node)
    scaled = call(aten.mul.Scalar, second, arguments_of(node)["alpha"])
    editor.replace(node, call(aten.add.Tensor, first, scaled))


def _scales_the_larger(node: Node) -> bool:
    if node.target is not aten.add.Tensor or arguments_of(node)["alpha"] == 1:
        return False
    first = node.args[0]
    if not isinstance(first, Node):
        return False
    # The kernel counts elements when it runs; dynamic sizes may be 1 then.
    return all(not isinstance(size, int) or size == 1 for size in first.meta["val"].shape)
