"""Weights of integers times one or two rows of floats, which may be split into digits of 8 bits.

Results are as near to those of float64 as float32's are, whether the processor has the instructions
for digits or not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.harness.exact import ROWS, assert_exact, native
from tests.harness.integer_weights import Layer
from tests.harness.ops import check_op

each_bits = pytest.mark.parametrize("bits", [8, 4])
each_count = pytest.mark.parametrize("rows", [1, 2])


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


# By name: as Layer takes them.
WEIGHTS: dict[str, Callable[[int], Layer]] = {
    "rows": lambda bits: Layer("channel", 67, 1024, bits=bits, zeros="zero", bias=True),
    "rows, zero points": lambda bits: Layer("channel", 130, 96, bits=bits, zeros="some"),
    "rows of one block": lambda bits: Layer("affine", 64, 32, bits=bits),
    **{
        f"groups of {group}": functools.partial(
            lambda bits, group: Layer("affine", 81, 1024, bits=bits, group=group), group=group
        )
        for group in (32, 64, 128, 256)
    },
    "groups of 32, zero points": lambda bits: Layer(
        "group", 145, 256, bits=bits, group=32, zeros="some"
    ),
    "groups of 64, zero points": lambda bits: Layer(
        "affine", 99, 320, bits=bits, group=64, zeros="some", bias=True
    ),
}


@each_bits
@each_count
@pytest.mark.parametrize("weight", WEIGHTS)
def test_results_are_as_exact_as_float32(weight: str, rows: int, bits: int) -> None:
    """Whatever a row holds, and with other rows beside it."""
    layer = WEIGHTS[weight](bits)
    run = native(layer, tensor(rows, layer.k))
    for i, name in enumerate(ROWS):
        x = tensor(rows, layer.k, seed=i)
        x[0] = ROWS[name](x[0])
        (result,) = run(x)
        try:
            assert_exact(result, x, layer)
        except AssertionError as error:
            raise AssertionError(f"a row with {name}: {error}") from error


@each_bits
def test_small_elements_count_where_the_weight_ignores_the_large_ones(bits: int) -> None:
    """What a row's digits leave out is little beside any part of the row, not only beside all."""
    layer = Layer("affine", 80, 1024, bits=bits, group=32)
    layer.q[:, ::29] = 0
    run = native(layer, tensor(1, 1024))
    for outlier in (10.0, 100.0, 1e3, 4e3, 1e4, 1e6, 1e12, 1e30):
        x = tensor(1, 1024, seed=3)
        x[:, ::29] = outlier
        assert_exact(run(x)[0], x, layer)


@each_bits
@each_count
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_no_number_and_infinity_are_as_with_floats(odd: float, rows: int, bits: int) -> None:
    """More rows are never split; each is computed as if it were alone."""
    layer = Layer("affine", 70, 256, bits=bits, group=32, zeros="some")
    x = tensor(rows, 256)
    x[-1, 77] = odd
    more = torch.cat([x, x, x])[:3]
    (of_floats,) = native(layer, more)(more)
    (result,) = native(layer, x)(x)
    assert result[-1].isfinite().logical_not().any()
    assert torch.equal(result.nan_to_num(1e30), of_floats[:rows].nan_to_num(1e30))
    assert torch.equal(result.isnan(), of_floats[:rows].isnan())


@each_bits
def test_an_overflow_is_no_error(bits: int) -> None:
    """Sums beyond float32 are infinite, or no numbers, as in eager PyTorch."""
    layer = Layer("channel", 64, 64, bits=bits)
    layer.q.fill_(7)
    layer.scale.fill_(1.0)
    x = torch.full((1, 64), 3e38)
    (result,) = native(layer, x)(x)
    assert result.isinf().all()


@each_bits
@pytest.mark.parametrize("columns", [63, 64, 65, 79, 80, 81, 95, 96, 97, 113, 128, 129])
def test_any_number_of_results(columns: int, bits: int) -> None:
    layer = Layer("affine", columns, 64, bits=bits, group=32, zeros="some", bias=True, relu=True)
    for rows in (1, 2):
        check_op(layer, [tensor(rows, 64)], rtol=2e-6)


@each_bits
def test_any_number_of_rows(bits: int) -> None:
    """Two rows are split, three are not; a program runs either."""
    layer = Layer("affine", 100, 128, bits=bits, group=64, zeros="some")
    check_op(
        layer,
        [tensor(2, 128)],
        dynamic_shapes=({0: Dim("n", min=1, max=40)},),
        more_inputs=[[tensor(size, 128, seed=size)] for size in (1, 2, 3, 2, 4, 1, 40, 2)],
        rtol=2e-6,
    )


@each_bits
@pytest.mark.parametrize(("k", "group"), [(24, 24), (48, 16), (40, 0), (96, 48), (33, 11), (80, 0)])
def test_rows_that_blocks_do_not_divide(k: int, group: int, bits: int) -> None:
    layer = Layer("affine", 70, k, bits=bits, group=group, zeros="some")
    check_op(layer, [tensor(2, k)], rtol=2e-6)


@each_bits
def test_rows_that_threads_share(bits: int) -> None:
    """So long that each thread splits a part."""
    layer = Layer("channel", 64, 20_032, bits=bits)
    x = tensor(2, 20_032)
    (result,) = native(layer, x)(x)
    assert_exact(result, x, layer)


class Readers(nn.Module):
    """Layers of one activation, and of rows that lie otherwise in it."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [(8, 32), (4, 32), (4, 64), (8, 0), (8, 64), (4, 128), (4, 32), (8, 32)]
        self.layers = nn.ModuleList(
            Layer("affine", 64 + 3 * i, 128, bits=bits, group=group)
            for i, (bits, group) in enumerate(kinds)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        y = x * 2 + 1  # [2, 256]
        left, right, whole = y[:, :128], y[:, 128:], y.reshape(4, 128)
        views = [left, left, left, right, right, y[1:, 64:192], left.unsqueeze(0), whole]
        return [layer(view) for layer, view in zip(self.layers, views, strict=True)]


def test_layers_that_read_the_same_rows_and_others() -> None:
    check_op(Readers(), [tensor(2, 256)], rtol=2e-6, more_inputs=[[tensor(2, 256, seed=9)]])


@pytest.mark.parametrize(
    "sizes", [(128,), (1, 1, 128), (2, 1, 128), (1, 2, 128), (1, 1, 1, 2, 128)]
)
def test_rows_of_any_rank(sizes: tuple[int, ...]) -> None:
    check_op(Layer("affine", 70, 128, bits=4, group=32), [tensor(*sizes)], rtol=2e-6)


@each_bits
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_half_types(dtype: torch.dtype, bits: int) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Layer("affine", 70, 128, bits=bits, group=32)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.float()).to(dtype)

    check_op(Half(), [tensor(1, 128).to(dtype)], rtol=1e-2)
