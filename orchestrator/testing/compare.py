"""Comparison of a program's results with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor


def eager_results(model: torch.nn.Module, inputs: Sequence[Tensor]) -> list[Any]:
    """Return what a model gives in eager PyTorch, as a flat list."""
    with torch.no_grad():
        return list(pytree.tree_leaves(model(*inputs)))


def first_difference(
    actual: Sequence[Any], expected: Sequence[Any], tolerance: float
) -> str | None:
    """Return what is wrong with results, None if all are as expected.

    tolerance: by how much of the largest value floats may be off; other types may not.
    """
    if len(actual) != len(expected):
        return f"{len(actual)} results, expected {len(expected)}"
    for number, (found, wanted) in enumerate(zip(actual, expected, strict=True)):
        problem = _difference(found, wanted, tolerance)
        if problem is not None:
            return f"result {number}: {problem}"
    return None


def _difference(found: Any, wanted: Any, tolerance: float) -> str | None:
    if not isinstance(found, Tensor) or not isinstance(wanted, Tensor):
        return None if found == wanted else f"{found!r}, expected {wanted!r}"
    if found.shape != wanted.shape:
        return f"sizes {list(found.shape)}, expected {list(wanted.shape)}"
    if found.dtype != wanted.dtype:
        return f"{found.dtype}, expected {wanted.dtype}"
    if not wanted.is_floating_point():
        wrong = int((found != wanted).sum())
        return f"{wrong} of {wanted.numel()} elements are wrong" if wrong else None
    left, right = found.double(), wanted.double()
    if not bool(left.isfinite().all()):
        return "values that are not finite"
    scale = float(right.abs().max())
    error = float((left - right).abs().max()) / (scale or 1.0)
    if error > tolerance:
        return f"off by {error:.1e} of the largest value, where {tolerance:.1e} is allowed"
    return None
