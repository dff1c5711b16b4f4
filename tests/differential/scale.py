"""How large the numbers of a tensor are, masks' lowest ones apart."""

from __future__ import annotations

from torch import Tensor

from tests.harness.allowed import largest

LARGEST = 1e4
"""Largest value that may occur: beyond it float32 has too little left behind the point."""


def scale_of(value: Tensor) -> float:
    """The largest absolute value of floats; 0 of others.

    Numbers beyond LARGEST say in a mask that a key is not seen, and are no measure.
    """
    return largest(value[value.abs() <= LARGEST]) if value.is_floating_point() else 0.0
