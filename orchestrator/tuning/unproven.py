"""Whether a program whose delegates nobody knows may be timed, and may win.

It is run in a process of its own, its results are compared with those of eager PyTorch, and the
threads that compute are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from orchestrator.backends import Backend
from orchestrator.cost.trial import try_out
from orchestrator.graph.quantized import is_quantization
from orchestrator.graph.queries import compute_nodes

# Of the largest value: where float32 is computed in another order; in half types; where roundings
# to int8 fall the other way.
_FLOAT, _HALF, _QUANTIZED = 1e-3, 2e-2, 1e-1
_MORE_THREADS = 0.5  # than asked for, on average, are a fault of a delegate


class Unproven:
    """Looks at one method's programs."""

    def __init__(self, program: ExportedProgram, inputs: Sequence[Any], tolerance: float) -> None:
        """Compute what the method returns.

        inputs: flat. tolerance: by how much of the largest value results may be off in any case.
        """
        self._inputs = list(inputs)
        self._allowed = max(tolerance, _allowed(program))
        self._expected: list[Any] | None = None
        if program.example_inputs is not None:
            arguments, keywords = program.example_inputs
            with torch.no_grad():
                self._expected = pytree.tree_leaves(program.module()(*arguments, **keywords))

    def problem(
        self, method: str, file: Path, backends: Iterable[Backend], threads: int
    ) -> str | None:
        """Return why a program may not be used, None if it may.

        backends: whose delegates it has.
        """
        trial = try_out(file, {method: self._inputs}, backends, threads)
        if method in trial.failures:
            return trial.failures[method]
        busy = trial.busy.get(method, 0.0)
        if busy > threads + _MORE_THREADS:
            return (
                f"it computes with {busy:.1f} threads at a time, where {threads} "
                f"{'was' if threads == 1 else 'were'} asked for"
            )
        actual = trial.outputs.get(method)
        if actual is None or self._expected is None:
            return None  # it raises an error, as it will here
        error = max(
            (_off(one, other) for one, other in zip(actual, self._expected, strict=True)),
            default=0.0,
        )
        if error <= self._allowed:
            return None
        return (
            f"its results are off by {error:.2g} of the largest value, where {self._allowed:g} is "
            "allowed"
        )


def _allowed(program: ExportedProgram) -> float:
    if any(map(is_quantization, compute_nodes(program))):
        return _QUANTIZED
    values = (node.meta.get("val") for node in program.graph.nodes)
    if any(isinstance(each, Tensor) and each.dtype in _HALVES for each in values):
        return _HALF
    return _FLOAT


_HALVES = (torch.float16, torch.bfloat16)


def _off(actual: Any, expected: Any) -> float:
    if not isinstance(actual, Tensor) or not isinstance(expected, Tensor):
        return 0.0 if actual == expected else math.inf
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return math.inf
    if not expected.numel():
        return 0.0
    one, other = actual.to(torch.float64), expected.to(torch.float64)
    if not torch.equal(one.isfinite(), other.isfinite()):
        return math.inf
    finite = other.isfinite()
    if not finite.any():
        return 0.0
    difference = (one - other)[finite].abs().max().item()
    return float(difference / max(other[finite].abs().max().item(), 1e-30))
