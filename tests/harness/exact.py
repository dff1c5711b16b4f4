"""Products against float64, by the error that float32 has.

Whatever instructions the processor has for them: digits, tiles or vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from orchestrator.native import NativeProgram
from tests.harness.integer_weights import Layer
from tests.harness.ops import lower_ggml, undelegated

# Of the sum of the magnitudes of a result's products, in last places of float32. Float32 itself is
# up to 6 of them off where one element outweighs all others, if it is summed up lane by lane.
PLACES = 16


def exact_weight(layer: Layer | nn.Linear) -> tuple[Tensor, Tensor]:
    """The weight [n, k] in float64, and the magnitude of what its elements are summed up from."""
    if isinstance(layer, nn.Linear):
        weight = layer.weight.detach().double()
        return weight, weight.abs()

    def columns(of_groups: Tensor) -> Tensor:
        wide = of_groups.double().reshape(layer.n, -1)
        return wide.repeat_interleave(layer.group, 1)[:, : layer.k]

    scale = columns(layer.scale)
    if layer.scheme == "minimums":
        product, minimum = layer.q.double() * scale, columns(layer.minimum)
        return product + minimum, product.abs() + minimum.abs()
    weight = (layer.q.double() - (0.0 if layer.zero is None else columns(layer.zero))) * scale
    return weight, weight.abs()


def native(model: nn.Module, x: Tensor) -> Callable[[Tensor], list[Tensor]]:
    """The model as ggml runs it, for inputs of x's sizes."""
    program, recorder, edge = lower_ggml(model.eval(), [x])
    assert not undelegated(edge), recorder.reasons
    loaded = NativeProgram(program.buffer)
    return lambda given: loaded.run("forward", [given])


def assert_exact(result: Tensor, x: Tensor, layer: Layer | nn.Linear, places: int = PLACES) -> None:
    """The result is that of float64 but for so many last places, and that of its own."""
    weight, magnitude = exact_weight(layer)
    expected = x.double() @ weight.t()
    error = places * 2.0**-24
    bound = error * (x.double().abs() @ magnitude.t()) + 1e-45 * weight.shape[1]
    if layer.bias is not None:
        expected += layer.bias.detach().double()
        bound += error * layer.bias.detach().double().abs()
    excess = (result.double() - expected).abs() / bound
    assert excess.max() <= 1, f"{excess.max():.3g} times the error that is allowed"


# What a row may hold; k numbers of a normal distribution become others.
ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "uniform": lambda x: x.erf(),
    "whole numbers": lambda x: (x * 9).round(),
    "all 0": lambda x: x * 0,
    "minus 0": lambda x: x * -0.0,
    "half of them 0": lambda x: x.relu(),
    "one that is not 0": lambda x: torch.where(torch.arange(len(x)) == 37, x, 0.0),
    "blocks of 0": lambda x: torch.where(torch.arange(len(x)) // 32 % 2 == 0, x, 0.0),
    "all equal": lambda x: torch.full_like(x, -0.7),
    "the largest digits": lambda x: torch.where(x > 0, 1.9921874, -1.9999999),
    "heavy tails": lambda x: x**5,
    "an outlier": lambda x: torch.where(torch.arange(len(x)) == 37, 1e3, x),
    "many outliers": lambda x: torch.where(torch.arange(len(x)) % 40 == 37, 700 * x, x),
    "one far outlier": lambda x: torch.where(torch.arange(len(x)) == 37, 1e30, x),
    "blocks of other magnitudes": lambda x: x * 10.0 ** (torch.arange(len(x)) // 32 % 9 - 4.0),
    "a softmax": lambda x: (8 * x).softmax(0),
    "huge": lambda x: x * 1e33,
    "tiny": lambda x: x * 1e-22,
    "hardly more than denormals": lambda x: x * 1e-33,
    "denormals": lambda x: x * 1e-39,
    "the smallest": lambda x: x.sign() * 1e-45,
    "some denormals": lambda x: torch.where(torch.arange(len(x)) % 3 == 0, x * 1e-39, x),
}
