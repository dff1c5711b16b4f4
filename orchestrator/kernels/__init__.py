"""Fits what no delegate took to ExecuTorch's kernels."""

from __future__ import annotations

from torch.export import ExportedProgram

from orchestrator.dim_orders.contiguous_kernels import make_kernels_contiguous
from orchestrator.kernels.centered_norms import center_norms
from orchestrator.kernels.half import widen_half_kernels


def fit_kernels(ep: ExportedProgram) -> None:
    """Have kernels compute on what they compute right; edits `ep`, a lowered program, in place."""
    widen_half_kernels(ep)
    make_kernels_contiguous(ep)
    center_norms(ep)
