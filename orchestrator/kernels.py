"""Fits what no delegate took to ExecuTorch's kernels."""

from __future__ import annotations

from torch.export import ExportedProgram

from orchestrator.dim_orders.contiguous_kernels import make_kernels_contiguous
from orchestrator.half_kernels import widen_half_kernels


def fit_kernels(ep: ExportedProgram) -> bool:
    """Have kernels compute on what they compute right; edits `ep`, a lowered program, in place.

    Returns whether anything changed.
    """
    widened = widen_half_kernels(ep)
    return make_kernels_contiguous(ep) or widened
