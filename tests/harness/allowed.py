"""An expected output with the error that it may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Allowed:
    """An output, and the largest absolute error it may have; integers have to be the same."""

    value: Tensor
    error: float

    def difference(self, got: object) -> str | None:
        """What is wrong with an output, or None."""
        want = self.value
        if not isinstance(got, Tensor):
            return f"a {type(got).__name__}, expected a tensor"
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"{got.dtype} {list(got.shape)}, expected {want.dtype} {list(want.shape)}"
        if not want.is_floating_point():
            return None if got.equal(want) else f"{(got != want).sum()} integers differ"
        finite = want.isfinite()
        if not torch.allclose(got[~finite], want[~finite], equal_nan=True):
            return "other infinities, or where there is no number, than expected"
        if not finite.any():
            return None
        error = (got.double() - want.double())[finite].abs().max().item()
        if error <= self.error:  # false of what is no number
            return None
        scale = largest(want) or 1.0
        return f"error {error / scale:.2e} of the scale, allowed {self.error / scale:.2e}"


def largest(value: Tensor) -> float:
    """The largest absolute finite value of a float tensor; 0 of others, and where there is none."""
    if not value.is_floating_point():
        return 0.0
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
