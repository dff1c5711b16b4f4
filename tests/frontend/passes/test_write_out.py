"""Ops without a kernel run as what they are written out to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional

from ggml_delegate.registry import rules
from orchestrator import lower
from orchestrator.frontend.passes import write_out
from orchestrator.frontend.passes.write_out import FOR_PLACES, WRITTEN_OUT
from tests.harness.ops import relative_error
from tests.harness.pte import Function

_GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(3, 9, 5, generator=_GENERATOR)
INTEGERS = torch.tensor([-9, -8, -7, -3, -1, 0, 1, 2, 5, 9])
DIVISORS = torch.tensor([3, -4, 7, -7, 5, -2, -3, 3, -7, 4])
ROUND = (ROWS * 2).round()
VOLUME = torch.randn(2, 4, 3, 5, 6, generator=_GENERATOR)
WEIGHT = torch.randn(4, 3, 2, 3, 2, generator=_GENERATOR)
TABLE = torch.randn(7, 3, generator=_GENERATOR)
PLACES = torch.randint(0, 7, (6,), generator=_GENERATOR)
SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 3e30, -2e-30])
UNKNOWN = torch.tensor([[1.0, math.nan, 3.0, 2.0], [4.0, 1.0, -math.inf, 0.0]])


def _bags(x: Tensor, **options: Any) -> Tensor:
    offsets = torch.tensor([0, 2, 2, 6])
    return functional.embedding_bag(x, TABLE, offsets, **options)


CASES: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "cumulative product, first dim": (lambda x: x.cumprod(0), ROWS),
    "cumulative product, last dim": (lambda x: x.cumprod(-1), ROWS),
    "cumulative product of one": (lambda x: x.cumprod(1), ROWS[:, :1]),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), ROWS * 20),
    "cummax, equal elements": (lambda x: tuple(x.cummax(1)), ROUND),
    "cummin, equal elements": (lambda x: tuple(x.cummin(1)), ROUND),
    "cummax with NaN": (lambda x: tuple(x.cummax(1)), UNKNOWN),
    "cummin with NaN": (lambda x: tuple(x.cummin(1)), UNKNOWN),
    "median of an even number": (lambda x: x.median(), ROWS[:2]),
    "median with NaN": (lambda x: (x.median(), x.median(1).values), UNKNOWN),
    "median keeps a dim": (lambda x: tuple(x.median(1, keepdim=True)), ROWS),
    "kthvalue keeps a dim": (lambda x: tuple(x.kthvalue(3, 0, keepdim=True)), ROWS),
    "quantile": (lambda x: x.quantile(0.3, dim=1, keepdim=True), ROWS),
    "quantiles": (lambda x: x.quantile(torch.tensor([0.1, 0.5, 1.0]), dim=1), ROWS),
    "quantile, nearest": (lambda x: x.quantile(0.3, dim=1, interpolation="nearest"), ROWS),
    "searchsorted, rows": (lambda x: torch.searchsorted(x.sort(-1).values, x * 0.5), ROWS),
    "searchsorted, right": (
        lambda x: torch.searchsorted(torch.tensor([-1.0, 0, 0, 2]), x, side="right"),
        ROUND,
    ),
    "bucketize, right, int32": (
        lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 2]), right=True, out_int32=True),
        ROUND,
    ),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 2])), ROUND),
    "erfc": (lambda x: torch.erfc(x), ROWS),
    "exp2": (lambda x: torch.exp2(x * 8), ROWS),
    "hypot of special numbers": (lambda x: torch.hypot(x, x.flip(0)), SPECIAL),
    "sign bits": (lambda x: x.signbit(), SPECIAL),
    "sign bits of integers": (lambda x: x.long().signbit(), ROUND),
    "copysign": (lambda x: torch.copysign(x + 1, x), SPECIAL),
    "copysign of a number": (lambda x: torch.copysign(x, -0.0), SPECIAL),
    "rrelu": (lambda x: functional.rrelu(x, 0.2, 0.4), ROWS),
    "shifts": (lambda x: ((x.int() << 3) >> 1, x.int() >> 2), ROUND),
    "remainders of a number by floats": (lambda x: torch.remainder(-7.5, x + 0.25), ROWS),
    "remainders of floats": (lambda x: (x % 0.75, x % -0.75, x % x.flip(0)), ROWS),
    "bags, sums": (lambda x: _bags(x, mode="sum"), PLACES),
    "bags, means": (lambda x: _bags(x), PLACES),
    "bags, weighted": (
        lambda x: _bags(x, mode="sum", per_sample_weights=torch.arange(6.0)),
        PLACES,
    ),
    "bags, last offset": (lambda x: _bags(x, include_last_offset=True), PLACES),
    "bags, last offset before the end": (
        lambda x: functional.embedding_bag(
            x, TABLE, torch.tensor([0, 2, 3]), include_last_offset=True
        ),
        PLACES,
    ),
    "bags, largest": (lambda x: _bags(x, mode="max"), PLACES),
    "bags, largest, but for one index": (lambda x: _bags(x, mode="max", padding_idx=2), PLACES),
    "bags, mean, but for one index": (lambda x: _bags(x, mode="mean", padding_idx=2), PLACES),
    "bags, rows": (lambda x: functional.embedding_bag(x, TABLE), PLACES.reshape(2, 3)),
    "adaptive pool of volumes": (lambda x: functional.adaptive_avg_pool3d(x, (2, 5, 4)), VOLUME),
    "adaptive maxima of images with their places": (
        lambda x: functional.adaptive_max_pool2d(x, (2, 3), return_indices=True),
        VOLUME[0].round(),
    ),
    "adaptive maxima of a signal with their places": (
        lambda x: functional.adaptive_max_pool1d(x.flatten(2), 4, return_indices=True),
        VOLUME,
    ),
    "adaptive maxima of volumes": (lambda x: functional.adaptive_max_pool3d(x, (2, 1, 3)), VOLUME),
    "adaptive maxima of volumes with their places": (
        lambda x: functional.adaptive_max_pool3d(x, (2, 3, 2), return_indices=True),
        VOLUME.round(),
    ),
    "adaptive maxima of one dim more": (
        lambda x: functional.adaptive_max_pool3d(x, 2),
        VOLUME[0],
    ),
    "round to decimals": (lambda x: (x.round(decimals=2), (x * 99).round(decimals=-1)), ROWS),
    "adaptive pool to one": (lambda x: functional.adaptive_avg_pool3d(x, 1), VOLUME),
    "transposed convolution of volumes": (
        lambda x: functional.conv_transpose3d(x, WEIGHT, torch.ones(3)),
        VOLUME,
    ),
    "transposed convolution of volumes, all options": (
        lambda x: functional.conv_transpose3d(
            x, WEIGHT[:, :1], torch.ones(2), (2, 1, 3), (1, 0, 1), (1, 0, 1), 2, (2, 1, 1)
        ),
        VOLUME,
    ),
    "vander": (lambda x: torch.vander(x[0, :, 0], 4), ROWS),
}


def _model(function: Callable[[Tensor], Any]) -> nn.Module:
    def results(x: Tensor) -> tuple[Tensor, ...]:
        found = function(x)
        return found if isinstance(found, tuple) else (found,)

    return Function(results)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_out_equals_eager(name: str) -> None:
    function, x = CASES[name]
    model = _model(function)
    program = lower(model, (x,), strategy="greedy")
    assert not program.report.methods[0].missing_kernels
    for got, want in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("backends", [["ggml", "xnnpack"], ["xnnpack"], ["ggml"]], ids=str)
def test_remainders_of_integers_are_exact(backends: list[str]) -> None:
    class Remainders(nn.Module):
        def forward(self, *pairs: Tensor) -> list[Tensor]:
            results = []
            for x, d in zip(pairs[::2], pairs[1::2], strict=True):
                results += [x % 7, x % -3, x % d, torch.remainder(-7, d), x % d[1]]
                results.append((x + 0).remainder_(d))
            return results

    model = Remainders()
    more = INTEGERS * 2**58 + 3  # than a double, or 32 bits, can hold
    pairs = [(more, DIVISORS), (INTEGERS.int(), DIVISORS.int())]
    pairs += [(INTEGERS.to(torch.int8), DIVISORS.to(torch.int8))]
    pairs += [(INTEGERS.abs().to(torch.uint8), DIVISORS.abs().to(torch.uint8))]
    inputs = tuple(each for pair in pairs for each in pair)
    program = lower(model, inputs, backends=backends, strategy="greedy")
    for got, want in zip(program(*inputs), model(*inputs), strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_remainders_by_sizes_are_exact() -> None:
    class Sizes(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            size = x.shape[0]
            return x % size, x % (size - 5), x % -size, x[(size - 5) % 3], x[-size % 3]

    model = Sizes()
    shapes = ({0: Dim("size", min=3, max=10)},)
    for backends in (["ggml", "xnnpack"], []):
        program = lower(
            model, (INTEGERS,), dynamic_shapes=shapes, backends=backends, strategy="greedy"
        )
        for size in (10, 7, 4, 3):
            for got, want in zip(program(INTEGERS[:size]), model(INTEGERS[:size]), strict=True):
                assert torch.equal(got, want)


def test_a_batch_stays_open() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        volume = functional.conv_transpose3d(x, WEIGHT, stride=2)
        return volume, functional.adaptive_avg_pool3d(volume, 2), volume.cumprod(1)

    model = Function(function)
    shapes = (({0: Dim("batch", min=1, max=40)},),)
    program = lower(model, (VOLUME,), dynamic_shapes=shapes, strategy="greedy")
    for batch in (1, 2, 40):
        x = torch.randn(batch, *VOLUME.shape[1:])
        for got, want in zip(program(x), model(x), strict=True):
            assert relative_error(got, want) <= 1e-5


LEFT: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "linalg_inv_ex": (lambda x: torch.linalg.inv(x[:, :5]), ROWS),
    "linalg_cholesky_ex": (lambda x: torch.linalg.cholesky(x @ x.mT), ROWS[:, :5]),
    "_linalg_solve_ex": (lambda x: torch.linalg.solve(x[:, :5], x[:, :5]), ROWS),
}


@pytest.mark.parametrize("op", LEFT)
def test_what_cannot_be_written_out_is_named(op: str) -> None:
    function, x = LEFT[op]
    with pytest.warns(UserWarning, match="will not load"):
        program = lower(_model(function), (x,))
    assert any(op in name for name in program.report.methods[0].missing_kernels)


def test_programs_without_such_ops_are_left_alone() -> None:
    program = export(nn.Linear(5, 2), (ROWS,))
    assert write_out(program) is program


@pytest.mark.parametrize("op", [op for op in WRITTEN_OUT if op not in FOR_PLACES], ids=str)
def test_nothing_else_runs_what_is_written_out(op: torch._ops.OpOverload) -> None:
    assert str(op) not in rules()
