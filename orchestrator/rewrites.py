"""Graph rewrites that help every backend, applied before ExecuTorch decomposes a program."""

from __future__ import annotations

from torch.export import ExportedProgram

from ggml_delegate.passes import apply_passes


def rewrite(program: ExportedProgram) -> ExportedProgram:
    """Return an ATen-dialect program that computes the same with less; the given one is kept."""
    return apply_passes(program)
