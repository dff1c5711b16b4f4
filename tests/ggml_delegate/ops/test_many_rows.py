"""Products of so many rows that they may be computed by tiles, of parts of bfloat16 or of bytes.

Results are as near to those of float64 as float32's are, whether the processor has tiles or not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.harness.exact import ROWS, native
from tests.harness.exact import assert_exact as assert_exact_to
from tests.harness.integer_weights import Layer
from tests.harness.ops import check_op

# One element after another, float32 is up to 33 last places off: beside an outlier, a row of equal
# numbers.
assert_exact = functools.partial(assert_exact_to, places=48)
each_bits = pytest.mark.parametrize("bits", [8, 4])


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def linear(k: int, n: int, weight: Callable[[Tensor], Tensor] = lambda w: w) -> nn.Linear:
    layer = nn.Linear(k, n)
    layer.weight = nn.Parameter(weight(tensor(n, k, seed=k + n)))
    return layer


# By name: what a weight of random numbers becomes.
FLOATS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda w: w,
    "bfloat16": lambda w: w.bfloat16().float(),
    "float16": lambda w: w.half().float(),
    "16 bits": lambda w: (w * 2**13).round() / 2**13,
    "all 0": lambda w: w * 0,
    "tiny": lambda w: w * 1e-36,
    "denormals": lambda w: w * 1e-40,
    "columns of other magnitudes": lambda w: (
        w * 10.0 ** (torch.arange(len(w)) % 33 - 30.0)[:, None]
    ),
    "heavy tails": lambda w: w**5,
    "an outlier": lambda w: torch.where(torch.arange(w.shape[1]) == 37, 1e3, w),
    "all positive": lambda w: w.abs(),
}


@pytest.mark.parametrize("weight", FLOATS)
def test_results_of_floats_are_as_exact_as_float32(weight: str) -> None:
    """Whatever a row holds, and with other rows beside it."""
    layer = linear(300, 83, FLOATS[weight])
    run = native(layer, tensor(67, layer.in_features))
    for i, name in enumerate(ROWS):
        x = tensor(67, layer.in_features, seed=i)
        x[i] = ROWS[name](x[i])
        (result,) = run(x)
        try:
            assert_exact(result, x, layer)
        except AssertionError as error:
            raise AssertionError(f"a row with {name}: {error}") from error


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "16 bits", "all 0"])
def test_rows_that_fewer_parts_stand_for(kind: str) -> None:
    """Of any part count, times weights of any other."""
    for weight in ("normal", "bfloat16", "float16"):
        layer = linear(130, 64, FLOATS[weight])
        x = FLOATS[kind](tensor(64, 130))
        assert_exact(native(layer, x)(x)[0], x, layer)


def test_errors_of_positive_numbers_do_not_add_up() -> None:
    """What a part is short of the number is as often above as below."""
    layer = linear(768, 64, torch.abs)
    layer.bias = None
    x = tensor(64, 768).abs()
    exact = x.double() @ layer.weight.double().t()
    error = (native(layer, x)(x)[0].double() - exact) / exact
    assert error.abs().max() < 3e-6
    assert abs(float(error.mean())) < 3e-8


SIZES = [
    (24, 64, 64),
    (33, 65, 64),
    (49, 160, 960),
    (131, 31, 130),
    (132, 200, 97),
    (133, 768, 48),
    (200, 769, 100),
    (197, 1537, 33),
    (264, 32, 1000),
    (265, 96, 17),
]


@pytest.mark.parametrize(("rows", "k", "n"), SIZES)
def test_floats_of_any_size(rows: int, k: int, n: int) -> None:
    layer = linear(k, n)
    x = tensor(rows, k)
    assert_exact(native(layer, x)(x)[0], x, layer)


# By name: a layer of so many bits.
INTEGERS: dict[str, Callable[[int], Layer]] = {
    "rows": lambda bits: Layer("channel", 67, 800, bits=bits, zeros="zero", bias=True),
    "rows of an odd number": lambda bits: Layer("channel", 80, 129, bits=bits, zeros="some"),
    "rows, zero points": lambda bits: Layer("channel", 130, 96, bits=bits, zeros="some"),
    **{
        f"groups of {group}": functools.partial(
            lambda bits, group: Layer("affine", 81, 1024, bits=bits, group=group), group=group
        )
        for group in (16, 32, 64, 128, 256)
    },
    "groups of 32, zero points": lambda bits: Layer(
        "group", 145, 256, bits=bits, group=32, zeros="some"
    ),
    "groups of 64, zero points": lambda bits: Layer(
        "affine", 99, 320, bits=bits, group=64, zeros="some", bias=True
    ),
    "groups of 32, minimums": lambda bits: Layer("minimums", 99, 320, bits=bits, group=32),
    "groups of 160, minimums": lambda bits: Layer("minimums", 64, 960, bits=bits, group=160),
}


@each_bits
@pytest.mark.parametrize("weight", INTEGERS)
def test_results_of_integers_are_as_exact_as_float32(weight: str, bits: int) -> None:
    layer = INTEGERS[weight](bits)
    run = native(layer, tensor(67, layer.k))
    for i, name in enumerate(ROWS):
        x = tensor(67, layer.k, seed=i)
        x[i] = ROWS[name](x[i])
        (result,) = run(x)
        try:
            assert_exact(result, x, layer)
        except AssertionError as error:
            raise AssertionError(f"a row with {name}: {error}") from error


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 3.4e38])
def test_no_number_and_infinity_stay_in_their_row(odd: float) -> None:
    x = tensor(70, 128)
    for layer in (linear(128, 96), linear(128, 96, lambda w: w.bfloat16().float())):
        run = native(layer, x)
        x = tensor(70, 128)
        (plain,) = run(x)
        x[41, 77] = odd
        (result,) = run(x)
        expected = layer(x)
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.isposinf(), expected.isposinf())
        assert torch.equal(result.isneginf(), expected.isneginf())
        others = torch.arange(70) != 41
        torch.testing.assert_close(result[others], plain[others])


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 3.4e38])
def test_no_number_and_infinity_stay_in_their_column(odd: float) -> None:
    x = tensor(70, 128)
    layer = linear(128, 96)
    layer.weight.data[41, 77] = odd
    (result,) = native(layer, x)(x)
    expected = layer(x)
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.isposinf(), expected.isposinf())
    others = torch.arange(96) != 41
    torch.testing.assert_close(result[:, others], expected[:, others], rtol=1e-5, atol=1e-5)


def test_any_number_of_rows() -> None:
    """A program takes the one way or the other, by the rows that it is given."""
    counts = (1, 5, 11, 12, 13, 16, 17, 24, 31, 32, 33, 47, 48, 49, 127, 200, 300, 6)
    for layer in (linear(96, 80), Layer("affine", 80, 96, bits=4, group=32, zeros="some")):
        check_op(
            layer,
            [tensor(40, 96)],
            dynamic_shapes=({0: Dim("n", min=1, max=300)},),
            more_inputs=[[tensor(count, 96, seed=count)] for count in counts],
            rtol=2e-6,
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype: torch.dtype) -> None:
    layer = nn.Linear(200, 96).to(dtype)
    check_op(layer, [tensor(70, 200).to(dtype)], rtol=8e-3 if dtype == torch.bfloat16 else 1e-3)


def test_products_of_two_activations() -> None:
    """Right factors whose rows, or columns, lie in memory one after another."""
    check_op(
        lambda a, b, c: (a @ b, a @ c.transpose(-1, -2), torch.relu(a @ b[..., :50])),
        [tensor(2, 70, 130), tensor(2, 130, 90), tensor(2, 90, 130)],
        rtol=3e-6,
    )


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "size"), [(16, 40, 3, 13), (3, 64, 7, 33), (96, 64, 1, 9)]
)
def test_convolutions(channels: int, out: int, kernel: int, size: int) -> None:
    model = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
    check_op(model, [tensor(2, channels, size, size)], rtol=3e-6)


def test_attention_of_many_queries() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    check_op(attend, [tensor(1, 3, 150, 64, seed=i) for i in range(3)], rtol=3e-6)
