"""Sorts run on ExecuTorch's kernel for `topk`."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from orchestrator import lower
from orchestrator.frontend.passes import sort_by_topk


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.function(x)


SORTS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "last dim": lambda x: tuple(torch.sort(x * 2)),
    "first dim, descending": lambda x: tuple(torch.sort(x * 2, 0, descending=True)),
    "not stable": lambda x: tuple(torch.sort(x * 2, dim=1, stable=False)),
    "values only": lambda x: (x.sort(dim=-2).values * 2,),
    "argsort": lambda x: (torch.argsort(x * 2, dim=1, descending=True),),
    "msort": lambda x: (torch.msort(x * 2),),
    "twice": lambda x: (x.argsort(-1).argsort(-1), x),
    "integers": lambda x: tuple(torch.sort((x * 8).to(torch.int64))),
}


@pytest.mark.parametrize("name", SORTS)
def test_sorts_of_distinct_values_equal_eager(name: str) -> None:
    x = torch.randperm(105).reshape(3, 7, 5) / 8 - 5
    model = _Function(SORTS[name])
    program = lower(model, (x,))
    assert not program.report.methods[0].missing_kernels
    for got, want in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_orders_ties_in_some_way(dtype: torch.dtype, descending: bool) -> None:
    """No order among equals is promised, but every element comes exactly once."""
    x = torch.randint(-2, 3, (3, 9)).to(dtype)
    model = _Function(lambda x: tuple(torch.sort(x * 2, descending=descending)))
    values, indices = lower(model, (x,))(x)
    torch.testing.assert_close(values, model(x)[0], rtol=0, atol=0)
    torch.testing.assert_close((x * 2).gather(1, indices), values, rtol=0, atol=0)
    assert torch.equal(indices.sort(1).values, torch.arange(9).expand(3, 9))


def test_nan_comes_above_infinity() -> None:
    x = torch.tensor([1.0, math.nan, -math.inf, math.inf, 0.0])
    for descending in (False, True):
        model = _Function(lambda x, down=descending: tuple((x + 0).sort(descending=down)))
        for got, want in zip(lower(model, (x,))(x), model(x), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_dynamic_sizes_are_sorted_whole() -> None:
    model = _Function(lambda x: tuple(x.sort(dim=1)))
    program = lower(model, (torch.randn(2, 5),), dynamic_shapes=({1: Dim("n", min=1, max=40)},))
    for count in (1, 5, 40):
        x = torch.randn(2, count)
        for got, want in zip(program(x), model(x), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: tuple(torch.sort(x, stable=True)), torch.randn(4)),
        (lambda x: tuple(torch.sort(x)), torch.tensor(2.0)),
        (lambda x: tuple(torch.sort(x)), torch.tensor([True, False])),
        (lambda x: (x + 1,), torch.randn(4)),
    ],
    ids=["stable", "number", "bools", "none"],
)
def test_others_stay(function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> None:
    program = export(_Function(function), (x,))
    assert sort_by_topk(program) is program
