"""What counts as equal to eager.

An output's largest absolute error, over the output's largest value, is at most BASE_TOLERANCE plus
NOISE_FACTOR times the change that rounding errors of NOISE in every input and every intermediate
result make in eager (what an op that adds up its inputs in another order loses is like noise in
them; where its steps cancel, as GELU's do, it is like noise in its arguments' last digits).
Integers and bools have to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.differential.graphs import Graph, Values, call, resolve

BASE_TOLERANCE = 2e-5
NOISE = 1e-6
NOISE_FACTOR = 20.0
CANCELLED = 0.01
"""How large a result counts at least, next to its step's arguments."""
MAX_TOLERANCE = 2e-3
"""Graphs that would need more amplify rounding errors too much to tell anything."""


def is_comparable(graph: Graph) -> bool:
    """Whether rounding errors stay small enough in the graph."""
    return all(t <= MAX_TOLERANCE for t in tolerances(graph, graph.make_inputs(1)))


def tolerances(graph: Graph, inputs: Sequence[Tensor]) -> list[float]:
    """For each output, the largest error allowed over its largest value; 0 for integers."""
    exact, noisy = outputs_of(graph, inputs), outputs_of(graph, inputs, noise=NOISE)
    return [
        BASE_TOLERANCE + NOISE_FACTOR * _error(a, b) if a.is_floating_point() else 0.0
        for a, b in zip(noisy, exact, strict=True)
    ]


def difference(got: Tensor, want: Tensor, allowed: float) -> str | None:
    """What is wrong with an output, or None."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype} {list(got.shape)}, expected {want.dtype} {list(want.shape)}"
    if not want.is_floating_point():
        return None if got.equal(want) else f"{(got != want).sum()} integers differ"
    error = _error(got, want)
    return None if error <= allowed else f"error {error:.2e} of the scale, allowed {allowed:.2e}"


def _error(got: Tensor, want: Tensor) -> float:
    if want.numel() == 0 or want.abs().max() == 0:
        return 0.0 if got.equal(want) else float("inf")
    error = (got.double() - want.double()).abs().max().item() / want.abs().max().item()
    return error if error == error else float("inf")


def outputs_of(graph: Graph, inputs: Sequence[Tensor], noise: float = 0.0) -> list[Tensor]:
    """Eager's outputs; `noise` is added to each value, as a fraction of its largest element."""
    generator = torch.Generator().manual_seed(7)

    def shaken(value: Tensor, at_least: float = 0.0) -> Tensor:
        if not value.is_floating_point() or not noise or value.numel() == 0:
            return value
        shake = torch.rand(value.shape, generator=generator) * 2 - 1
        return value + noise * max(_largest(value), at_least) * shake

    values = Values(list(map(shaken, inputs)), graph.constants, [])
    with torch.no_grad():
        for step in graph.steps:
            result = call(step, values)
            if noise:
                scale = CANCELLED * max(
                    (_largest(values.get(ref)) for ref in step.refs()), default=0
                )
                parts = [result] if isinstance(result, Tensor) else result
                parts = [shaken(part, scale) for part in parts]
                result = parts[0] if isinstance(result, Tensor) else parts
            values.results.append(result)
    return [resolve(ref, values) for ref in graph.outputs]


def _largest(value: Tensor) -> float:
    if value.numel() == 0 or not value.is_floating_point():
        return 0.0
    return float(value.abs().max())
