"""Comparisons, logic and selection on ggml equal eager, with every kind of broadcasting."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.harness.ops import check_op

COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
SIZES = [
    ((3, 37), (3, 37)),
    ((3, 37), (37,)),
    ((2, 1, 5), (4, 1)),
    ((2, 3, 4, 5), (2, 1, 4, 1)),
    ((2, 1, 2, 3, 2), (3, 1)),
]


def grid(sizes: tuple[int, ...], seed: int = 0) -> Tensor:
    """Floats of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, sizes, generator=generator).float() / 2


def integers(sizes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.int64) -> Tensor:
    """Small integers."""
    return (grid(sizes, seed) * 2).to(dtype)


@pytest.mark.parametrize("make", [grid, integers])
def test_comparisons_of_tensors(make: Callable[..., Tensor]) -> None:
    check_op(
        lambda *xs: [
            compare(a, b) for compare in COMPARISONS for a, b in zip(xs[::2], xs[1::2], strict=True)
        ],
        [make(sizes, seed) for pair in SIZES for seed, sizes in enumerate(pair)],
    )


def test_comparisons_with_numbers() -> None:
    check_op(
        lambda x, i: (
            [compare(x, 0.5) for compare in COMPARISONS]
            + [compare(x, 1) for compare in COMPARISONS]
            + [compare(i, 1) for compare in COMPARISONS]
            + [compare(i, 0.5) for compare in COMPARISONS]
        ),
        [grid((3, 7)), integers((3, 7))],
    )


def test_comparisons_of_integers_with_floats_and_of_masks() -> None:
    check_op(
        lambda x, i, j, m: (i < x, x == i, i != j, m == (x > 0), m > i),
        [grid((3, 7)), integers((3, 7)), integers((7,), 1, torch.int32), grid((3, 7), 2) > 0],
    )


def test_special_floats() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1.0])
    check_op(
        lambda a, b: (*(compare(a, b) for compare in COMPARISONS), a.isnan(), a == -math.inf),
        [x.reshape(7, 1), x],
    )


def test_comparisons_of_views() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = x * 1
        return [
            y.transpose(1, 3) > 0.5,
            y[:, ::2] < y[:, 1::2],
            y.permute(0, 2, 3, 1) >= y[0, :, 0, 0],
            y.expand(2, 2, 4, 6, 5) == y[:, :1],
        ]

    check_op(function, [grid((2, 4, 6, 5))])
    check_op(function, [grid((2, 4, 6, 5)).to(memory_format=torch.channels_last)])


def test_logic() -> None:
    def function(x: Tensor, i: Tensor, j: Tensor) -> list[Tensor]:
        a, b = x > 0, x < 1
        return [
            a & b,
            a | b[0],
            a ^ b,
            ~a,
            torch.logical_not(x),
            torch.logical_and(x, i),
            torch.logical_or(a, i),
            torch.logical_xor(i, x),
            i & j,
            i | 5,
            i ^ j,
            ~i,
        ]

    check_op(function, [grid((3, 7)), integers((3, 7)), integers((7,), 1)])


WHERE: dict[str, Callable[..., Any]] = {
    "tensors": lambda m, a, b, i: torch.where(m, a, b),
    "broadcast": lambda m, a, b, i: torch.where(m[0], a, b[:, :1]),
    "numbers": lambda m, a, b, i: (torch.where(m, a, 2.0), torch.where(m, -1.0, b)),
    "integers": lambda m, a, b, i: (torch.where(m, i, 3), torch.where(m[:, :1], 0, i)),
    "promoted": lambda m, a, b, i: torch.where(m, a, i),
    "masked_fill": lambda m, a, b, i: (
        a.masked_fill(m, -math.inf).softmax(-1),
        a.masked_fill(m[:1], 5),
        i.masked_fill(m, 7),
    ),
    "compared": lambda m, a, b, i: torch.where(a > b, a, b * 2),
}


@pytest.mark.parametrize("name", WHERE)
def test_where(name: str) -> None:
    mask = torch.rand(3, 21, generator=torch.Generator().manual_seed(0)) > 0.5
    check_op(WHERE[name], [mask, grid((3, 21)), grid((3, 21), 1), integers((3, 21), 2)])


def test_where_of_other_layouts() -> None:
    def function(x: Tensor, m: Tensor) -> list[Tensor]:
        y = x * 2
        return [
            torch.where(m, y, -y),
            torch.where(m.transpose(1, 2), y.transpose(1, 2), 0.0),
            torch.where(m[:, ::2], y[:, ::2], y[:, 1::2]),
            torch.where(m[:, :1], y, torch.where(m, 1.0, y)),
        ]

    x = grid((2, 4, 3, 5))
    check_op(function, [x, x > 0])
    check_op(function, [x.to(memory_format=torch.channels_last), x > 0])


def test_large_masks_on_all_threads() -> None:
    x = grid((64, 1000))
    check_op(lambda x: torch.where((x > 0) & (x < 1), x, -x), [x])


def test_dynamic_causal_mask() -> None:
    def function(x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        return (x @ x.mT).masked_fill(place[None, :] > place[:, None], -math.inf).softmax(-1)

    t = Dim("t", min=2, max=50)
    others = [[grid((2, size, 8), size)] for size in (2, 3, 50)]
    check_op(function, [grid((2, 7, 8))], dynamic_shapes={"args": ({1: t},)}, more_inputs=others)


def test_numbers_beyond_int32_are_refused() -> None:
    check_op(
        lambda i: i.abs() < (1 << 40),
        [integers((5,))],
        delegated=False,
        reason="does not fit int32",
    )
