"""Linear layers whose activations become integers in every run, as well as their weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.harness.activations import WAYS
from tests.harness.integer_weights import SCHEMES, Layer, Zeros
from tests.harness.ops import check_op

ways = pytest.mark.parametrize("way", WAYS)
each_bits = pytest.mark.parametrize("bits", [8, 4])
# Sums of integers are exact; several groups of them are added up as floats.
ERROR = 2e-6


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


class Quantized(nn.Module):
    """Layers of one quantized activation, and of that with its rows put together otherwise."""

    def __init__(self, way: str, *layers: nn.Module) -> None:
        super().__init__()
        self.rounded, self.layers = WAYS[way](), nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        rounded = self.rounded(x)
        return [layer(rounded) for layer in self.layers]


@ways
@each_bits
@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_equal_eager(scheme: str, bits: int, way: str) -> None:
    """One result, several, and more than fit a panel; each of one row, and of many."""
    for rows, k in (((1,), 32), ((3, 5), 96), ((40,), 1600)):
        layers = [SCHEMES[scheme](n, k, bits=bits) for n in (1, 50, 130)]
        check_op(Quantized(way, *layers), [tensor(*rows, k)], rtol=ERROR)


@ways
@each_bits
def test_any_number_of_rows(bits: int, way: str) -> None:
    layers = [Layer("affine", n, 64, bits=bits, group=group) for n, group in ((40, 32), (9, 64))]
    check_op(
        Quantized(way, *layers),
        [tensor(7, 64)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[tensor(size, 64, seed=size)] for size in (*range(1, 14), 21, 300)],
        rtol=ERROR,
    )


@each_bits
@pytest.mark.parametrize(("k", "group"), [(8, 8), (24, 8), (48, 24), (33, 11), (12, 12), (96, 12)])
def test_rows_of_any_length(bits: int, k: int, group: int) -> None:
    """Products read several elements at a time: what they do not divide into stays floats."""
    layer = Layer("affine", 21, k, bits=bits, group=group, zeros="some")
    check_op(Quantized("per row", layer), [tensor(9, k)], rtol=ERROR)


@each_bits
@pytest.mark.parametrize("rows", [5, 40])
def test_the_largest_sums(bits: int, rows: int) -> None:
    """No sum may overflow: all integers of the rows and of the weight are the largest there are."""
    low, high = (-128, 127) if bits == 8 else (-8, 7)
    signs = torch.tensor([1.0, -1.0, 3.0, -0.5, 2.0]).repeat(rows // 5)
    for q in (low, high):
        layer = Layer("channel", 33, 16_384, bits=bits)
        layer.q.fill_(q)
        x = torch.ones(rows, 16_384) * signs[:, None]
        # Eager PyTorch's sums of so many floats are 2e-5 off.
        check_op(Quantized("per row", layer), [tensor(rows, 16_384)], more_inputs=[[x]], rtol=1e-4)


@each_bits
@pytest.mark.parametrize("zeros", ["none", "some"])
@pytest.mark.parametrize(("group", "count"), [(32, 1), (32, 27), (64, 9), (96, 5), (160, 4)])
def test_groups_of_many_rows(bits: int, group: int, count: int, zeros: Zeros) -> None:
    """Fewer groups than are summed up at a time, more, and with some left."""
    layer = Layer("affine", 83, group * count, bits=bits, group=group, zeros=zeros, bias=True)
    check_op(
        Quantized("per row", layer),
        [tensor(67, layer.k)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[tensor(rows, layer.k, seed=rows)] for rows in (24, 32, 161)],
        rtol=ERROR,
    )


@each_bits
def test_the_largest_sums_of_groups(bits: int) -> None:
    """What stands for the rows' zero points is the largest there is, too."""
    low, high = (-128, 127) if bits == 8 else (-8, 7)
    # Rows of one sign, whose zero point is the lowest or the highest integer, and of both signs.
    signs = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [3.0, -1.0], [-0.5, 2.0]]).repeat(8, 1)
    for q in (low, high):
        layer = Layer("affine", 33, 320, bits=bits, group=32)
        layer.q.fill_(q)
        x = signs.repeat(1, 160)
        check_op(Quantized("per row", layer), [tensor(32, 320)], more_inputs=[[x]], rtol=1e-5)


@ways
def test_what_is_quantized_is_read_by_others_too(way: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rounded = WAYS[way]()
            self.layers = nn.ModuleList(Layer("channel", 24, 32, bits=bits) for bits in (8, 4, 8))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.rounded(x)
            rows = y.reshape(-1, 32)
            first, second, third = self.layers
            return first(y), second(rows), third(y.transpose(0, 1)), y, y * 2

    check_op(Model(), [tensor(3, 4, 32)], rtol=ERROR)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_leaves_other_rows(odd: float) -> None:
    for rows in (9, 40):
        x = tensor(rows, 64)
        x[4, 3] = odd
        model = Quantized("per row", Layer("channel", 40, 64, bits=8, zeros="some"))
        with torch.no_grad():
            (expected,) = model(x)
        assert expected[4].isnan().all()
        first = tensor(rows, 64, seed=6)
        check_op(model, [first], more_inputs=[[x]], rtol=ERROR, may_be_constant=True)


@each_bits
def test_a_fused_activation_and_a_bias(bits: int) -> None:
    layer = Layer("channel", 24, 32, bits=bits, bias=True, relu=True)
    check_op(Quantized("per row", layer), [tensor(3, 32)], rtol=ERROR)
