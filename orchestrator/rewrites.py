"""Graph rewrites that help every backend, applied before ExecuTorch decomposes a program."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.passes import (
    apply_passes,
    decompose_custom,
    expand_weights,
    unwrap_subclasses,
)
from orchestrator.graph import is_custom_composite


def rewrite(
    program: ExportedProgram,
    *,
    decompose: Callable[[Node], bool] = lambda node: False,
    expand: Collection[str] = (),
) -> ExportedProgram:
    """Return an ATen-dialect program that computes the same with less; the given one is kept.

    Args:
        program: as exported.
        decompose: whether to write a node, of an op that is made of others, with these.
        expand: names of quantized weights to store as floats.
    """
    program = expand_weights(unwrap_subclasses(program), expand)
    program = decompose_custom(program, lambda node: is_custom_composite(node) and decompose(node))
    # A name may be that of a tensor that the passes made.
    return expand_weights(apply_passes(program), expand)
