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


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, str]] = {
    "two dimensions": (
        lambda x: x.mean((2, 3)),
        normal((2, 3, 4, 5)),
        "mean over several dims: left to other backends",
    ),
    "all dimensions": (lambda x: x.sum(), normal((3, 4)), "sum over several dims"),
    "no dimension means all": (lambda x: x.sum(()), normal((3, 4)), "sum over several dims"),
    "another dtype": (lambda x: x.sum(1, dtype=torch.float64), normal((3, 4)), "float64"),
    "integers": (lambda x: x.sum(1), torch.arange(12).reshape(3, 4), "dtype int64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_still_equals_eager(name: str) -> None:
    function, x, reason = REFUSED[name]
    check_op(function, [x], delegated=False, reason=reason)
