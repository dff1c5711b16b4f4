"""Products of bfloat16: as exact as float32's, and rounded once, by whatever instructions.

Some processors multiply pairs of bfloat16, which they take for 0 where they are not normal.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.harness.exact import PLACES, ROWS, native

BF16 = torch.bfloat16
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda w: w,
    "columns of other magnitudes": lambda w: (
        w * 10.0 ** (torch.arange(len(w)) % 33 - 30.0)[:, None]
    ),
    "tiny": lambda w: w * 1e-36,
    "denormals": lambda w: w * 1e-39,
    "a column of denormals": lambda w: torch.where(torch.arange(len(w))[:, None] == 5, 1e-39, w),
    "all 0": lambda w: w * 0,
}


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def linear(k: int, n: int, weight: Callable[[Tensor], Tensor] = lambda w: w) -> nn.Linear:
    layer = nn.Linear(k, n)
    layer.weight = nn.Parameter(weight(tensor(n, k, seed=k + n)))
    return layer.to(BF16).eval()


def assert_rounded_once(result: Tensor, x: Tensor, layer: nn.Linear) -> None:
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    want = x.double() @ weight.t() + bias
    error = PLACES * 2.0**-24 * (x.double().abs() @ weight.abs().t() + bias.abs())
    smallest = 2.0**-133
    bound = error + 2.0**-8 * (want.abs() + error) + smallest
    excess = (result.double() - want).abs() / bound
    assert result.dtype == BF16
    assert excess.max() <= 1, f"{excess.max():.3g} times the error that is allowed"


@pytest.mark.parametrize("weight", WEIGHTS)
def test_whatever_a_row_holds(weight: str) -> None:
    layer = linear(300, 83, WEIGHTS[weight])
    run = native(layer, tensor(67, 300).to(BF16))
    for i, name in enumerate(ROWS):
        x = tensor(67, 300, seed=i)
        x[i] = ROWS[name](x[i])
        try:
            assert_rounded_once(run(x.to(BF16))[0], x.to(BF16), layer)
        except AssertionError as error:
            raise AssertionError(f"a row with {name}: {error}") from error


@pytest.mark.parametrize("rows", [1, 4, 5, 12, 13, 25, 131, 140])
@pytest.mark.parametrize("k", [1, 31, 769, 1540])
def test_any_sizes(rows: int, k: int) -> None:
    """Blocks of rows and of k, and odd numbers of both."""
    for n in (3, 16, 50):
        layer, x = linear(k, n), tensor(rows, k).to(BF16)
        assert_rounded_once(native(layer, x)(x)[0], x, layer)


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("where", ["row", "weight"])
def test_what_is_not_finite_stays_so(odd: float, where: str) -> None:
    layer, x = linear(70, 40), tensor(20, 70).to(BF16)
    with torch.no_grad():
        (x if where == "row" else layer.weight)[7, 33] = odd
        want = layer(x)
    (got,) = native(layer, x)(x)
    assert torch.equal(got.isfinite(), want.isfinite())
    assert torch.equal(got.isnan(), want.isnan())
    torch.testing.assert_close(got, want, equal_nan=True)


def test_floats_beside_bfloat16_stay_as_exact() -> None:
    """What is not rounded between two layers does not stand in bfloat16."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(64, 48)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x.float() * 1.001, self.layer.weight.float()).to(BF16)

    x = tensor(24, 64).to(BF16)
    model = Scaled().eval()
    (got,) = native(model, x)(x)
    want = (x.float() * 1.001).double() @ model.layer.weight.detach().double().t()
    assert ((got.double() - want).abs() <= 2.0**-8 * want.abs() + 1e-5).all()


def test_convolutions_of_bfloat16() -> None:
    for kernel, groups in ((1, 1), (3, 1), (3, 24)):
        conv = nn.Conv2d(24, 48, kernel, padding=kernel // 2, groups=groups).to(BF16).eval()
        x = tensor(2, 24, 9, 11).to(BF16)
        (got,) = native(conv, x)(x)
        with torch.no_grad():
            want = conv.double()(x.double())
        conv.to(BF16)
        assert ((got.double() - want).abs() <= 2.0**-8 * want.abs() + 1e-4).all()
