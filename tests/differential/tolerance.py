"""What counts as equal to eager.

An output's largest absolute error, over the output's largest value, is at most BASE_TOLERANCE plus
NOISE_FACTOR times the change that rounding errors of NOISE in every input and every intermediate
result make in eager (what an op that adds up its inputs in another order loses is like noise in
them; where its steps cancel, as GELU's do, it is like noise in its arguments' last digits).
Of graphs in half precision both are what that precision rounds by.
Integers and bools have to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.differential.graphs import Graph, Values, call, resolve
from tests.differential.scale import scale_of
from tests.harness.allowed import Allowed, largest


@dataclass(frozen=True)
class Rounding:
    """What the results of a dtype may be off by; see above. most: above it, nothing is told."""

    base: float
    noise: float
    factor: float
    most: float


BASE_TOLERANCE = 2e-5
NOISE = 1e-6
NOISE_FACTOR = 20.0
MAX_TOLERANCE = 2e-3
CANCELLED = 0.01
"""How large a result counts at least, next to its step's arguments."""
ROUNDING: Mapping[torch.dtype, Rounding] = {
    torch.float32: Rounding(BASE_TOLERANCE, NOISE, NOISE_FACTOR, MAX_TOLERANCE),
    torch.bfloat16: Rounding(2.0**-7, 2.0**-9, 2.0, 0.1),
    torch.float16: Rounding(2.0**-10, 2.0**-12, 2.0, 0.02),
}


def is_comparable(graph: Graph) -> bool:
    """Whether rounding errors stay small enough in the graph."""
    most = ROUNDING[graph.dtype].most
    allowed = allowed_outputs(graph, graph.make_inputs(1))
    return all(each.error <= most * largest(each.value) for each in allowed)


def allowed_outputs(graph: Graph, inputs: Sequence[Tensor]) -> list[Allowed]:
    """Eager's outputs, with the error that each may have.

    inputs: values of all of the graph's inputs, its states among them.
    """
    exact, noisy = outputs_of(graph, inputs), outputs_of(graph, inputs, noise=True)
    return allowed_between(graph, exact, noisy)


def allowed_between(
    graph: Graph, exact: Sequence[Tensor], *noisy: Sequence[Tensor]
) -> list[Allowed]:
    """Outputs with the error that each may have, judged by how far noisy ones are from them.

    noisy: as many draws as there are; the one farthest away counts.
    """
    rounding = ROUNDING[graph.dtype]
    results = []
    for value, *others in zip(exact, *noisy, strict=True):
        error = 0.0
        if value.is_floating_point() and value.numel():
            moved = max(largest(other.double() - value.double()) for other in others)
            error = rounding.base * largest(value) + rounding.factor * moved
        results.append(Allowed(value, error))
    return results


def outputs_of(graph: Graph, inputs: Sequence[Tensor], *, noise: bool = False) -> list[Tensor]:
    """Eager's outputs; noise: each value is off by as much as rounding may make it."""
    values = run_eagerly(graph, inputs, noise=noise)
    return [resolve(ref, values) for ref in graph.outputs]


def run_eagerly(
    graph: Graph, inputs: Sequence[Tensor], *, noise: bool = False, draw: int = 0
) -> Values:
    """All that the steps compute.

    draw: the number of the noise.
    """
    generator = torch.Generator().manual_seed(7 + draw)
    share = ROUNDING[graph.dtype].noise if noise else 0.0

    def shaken(value: Tensor, at_least: float = 0.0) -> Tensor:
        if not value.is_floating_point() or not noise or value.numel() == 0:
            return value
        shake = torch.rand(value.shape, generator=generator) * 2 - 1
        return value + (share * max(scale_of(value), at_least) * shake).to(value.dtype)

    constants = [graph.cast(value) for value in graph.constants]
    values = Values(list(map(shaken, inputs)), constants, [])
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
    return values


def _largest(value: object) -> float:
    parts = value if isinstance(value, list | tuple) else [value]
    return max((scale_of(part) for part in parts if isinstance(part, Tensor)), default=0.0)
