"""Softmax, mean and sum on ggml equal eager along every dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.harness.ops import check_op

SIZES = [(9,), (3, 37), (2, 5, 8), (3, 4, 5, 7), (2, 3, 2, 4, 3)]


def normal(sizes: tuple[int, ...], scale: float = 3, seed: int = 0) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed + 1)) * scale


def test_softmax_along_every_dimension() -> None:
    check_op(
        lambda *xs: tuple(
            function(x, dim)
            for x in xs
            for dim in range(-1, x.dim() - 1)
            for function in (torch.softmax, torch.log_softmax)
        ),
        [normal(sizes) for sizes in SIZES],
    )


def test_softmax_of_channels_last() -> None:
    x = normal((3, 19, 5, 7)).to(memory_format=torch.channels_last)
    check_op(lambda x: (x.softmax(1), x.softmax(2), x.log_softmax(1), x.log_softmax(3)), [x])


def test_softmax_of_views() -> None:
    def views(x: Tensor) -> tuple[Tensor, ...]:
        return (
            x[:, 1:3].softmax(1),
            x[:, :, 2:4, 1:5].softmax(-1),
            x.transpose(1, 3).softmax(-1),
            x[..., ::2].log_softmax(-1),
        )

    check_op(views, [normal((3, 4, 5, 7))])


def test_softmax_of_masked_and_of_large_scores() -> None:
    scores = normal((6, 21))
    scores[:, 5:9] = -math.inf
    scores[1] = -math.inf
    scores[2] *= 1e4
    scores[3, 4] = math.nan
    scores[4, 4] = math.inf
    check_op(
        lambda x: (x.softmax(-1), x.log_softmax(-1), x.t().softmax(0), x.t().log_softmax(0)),
        [scores],
        may_be_constant=True,
    )


def test_mean_and_sum_along_every_dimension() -> None:
    check_op(
        lambda *xs: tuple(
            function(x, dim, keepdim=keepdim)
            for x in xs
            for dim in range(-1, x.dim() - 1)
            for function in (torch.mean, torch.sum)
            for keepdim in (False, True)
        ),
        [normal(sizes) + 1 for sizes in (*SIZES, (2, 3000), (1, 700, 3))],
    )


def test_mean_of_channels_last_and_of_views() -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            x.mean(1),
            x.mean(2, keepdim=True),
            x.sum(3),
            y[:, 1:3].mean(1),
            y.permute(2, 0, 3, 1).mean(1),
        )

    x = normal((3, 19, 5, 7)).to(memory_format=torch.channels_last)
    check_op(function, [x, normal((3, 4, 5, 7))])


def test_mean_and_sum_of_a_vector() -> None:
    check_op(lambda x: (x.mean(), x.sum(), x.mean(0, keepdim=True)), [normal((33,))])


def test_long_sums_keep_their_accuracy() -> None:
    x = torch.rand(3, 200_000) + 1
    check_op(lambda x: (x.mean(1), x.t().contiguous().mean(0)), [x], rtol=1e-6)


def test_dynamic_sizes() -> None:
    batch, length = Dim("batch", min=1, max=6), Dim("length", min=2, max=50)
    check_op(
        lambda x: (x.softmax(-1), x.mean(1), x.log_softmax(1), x.sum(2, keepdim=True)),
        [normal((3, 17, 4))],
        dynamic_shapes={"args": ({0: batch, 1: length},)},
        more_inputs=[[normal((1, 50, 4))], [normal((6, 2, 4))]],
    )


def test_several_dimensions() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = x * 2
        return [
            y.sum(),
            y.sum((0, 2)),
            y.mean((1, 2), keepdim=True),
            y.mean((0, 3)),
            y.mean(),
            y.transpose(1, 3).sum((1, 2)),
            y.amax((0, 1, 3), keepdim=True),
            y.amin((2, 3)),
            y[0, 0].prod(),
        ]

    check_op(function, [normal((2, 3, 4, 5), 0.8)], rtol=2e-5)
    x = normal((2, 3, 4, 5), 0.8).to(memory_format=torch.channels_last)
    check_op(function, [x], rtol=2e-5)


def test_extremes_and_their_places() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = torch.round(x)  # with equal elements
        return [
            *(result for dim in (0, 1, -1) for result in y.max(dim)),
            *y.min(1, keepdim=True),
            y.argmax(),
            y.argmin(0),
            y.argmax(-1, keepdim=True),
            y.amax(1),
            y.amin(),
            y.transpose(0, 1).argmax(1),
            (y * 2).to(torch.int32).amax(0),
            (y * 2).to(torch.int32).argmin(1),
        ]

    check_op(function, [normal((3, 70, 5))])
    check_op(function, [normal((130, 2, 3), seed=3)])


def test_extremes_of_special_floats() -> None:
    x = torch.tensor(
        [[1.0, math.nan, 3.0, math.nan], [-math.inf, 2, math.inf, 2], [0.0, -0.0, 0, 0]]
    )
    check_op(
        lambda x: (*x.max(1), *x.min(1), x.argmax(0), x.argmin(0), x.amax(), x.t().argmax(0)),
        [x],
        may_be_constant=True,  # NaN has no spread
    )


def test_masks() -> None:
    def function(x: Tensor) -> list[Tensor]:
        mask = x > 1.5
        return [
            mask.any(1),
            mask.all(0),
            mask.any(),
            (x > -9).all(),
            mask.any((0, 2), keepdim=True),
            x.any(2),
            mask.sum(),
            mask.sum((0, 1)),
            mask.to(torch.int32).any(-1),
        ]

    check_op(function, [normal((3, 4, 5), 1)])


def test_running_sums() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = x * 2
        return [
            y.cumsum(0),
            y.cumsum(1),
            y.cumsum(-1),
            y.transpose(0, 2).cumsum(0),
            (y > 0).cumsum(1),
            (y > 0).to(torch.int32).cumsum(-1),
        ]

    check_op(function, [normal((3, 70, 5))])


def test_running_sums_of_numbers_are_the_numbers() -> None:
    def function(x: Tensor) -> list[Tensor]:
        return [x.cumsum(0), (x * 2).cumsum(-1), (x > 0).cumsum(0)]

    check_op(function, [torch.tensor(1.5)])


def test_long_running_sums_stay_exact() -> None:
    check_op(lambda x: x.cumsum(0), [normal((100_000,)) + 1])


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, str]] = {
    "two dimensions": (
        lambda x: x.mean((2, 3)),
        normal((2, 3, 4, 5)),
        "mean over several dims: left to other backends",
    ),
    "another dtype": (lambda x: x.sum(1, dtype=torch.float64), normal((3, 4)), "float64"),
    "integers": (lambda x: x.sum(1), torch.arange(12).reshape(3, 4), "may exceed int32"),
    "integers as floats": (
        lambda x: x.sum(1, dtype=torch.float32),
        torch.arange(12).reshape(3, 4),
        "integers as floats",
    ),
    "a product of integers": (
        lambda x: x.prod(1),
        torch.arange(12).reshape(3, 4),
        "a product of integers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_still_equals_eager(name: str) -> None:
    function, x, reason = REFUSED[name]
    check_op(function, [x], delegated=False, reason=reason)
