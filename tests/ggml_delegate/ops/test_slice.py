"""Slices, selections and splits against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.harness.ops import check_op

Function = Callable[[Tensor], Tensor]


def _input(*sizes: int, channels_last: bool = False) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(sizes)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def _each(functions: Sequence[Function]) -> Callable[[Tensor], list[Tensor]]:
    """Every function between two ops that compute, so that none is only a matter of boundaries."""
    return lambda x: [torch.relu(function(x * 2) + 2) for function in functions]


SLICES: list[Function] = [
    lambda x: x[1:],
    lambda x: x[:, 1:3],
    lambda x: x[:, :, -3:],
    lambda x: x[..., :-2],
    lambda x: x[..., ::2],
    lambda x: x[..., 1::3],
    lambda x: x[:, :, ::2, 1:6:2],
    lambda x: x[:, ::2, ::3],
    lambda x: x[:, -100:100],
    lambda x: x.narrow(2, 1, 2),
    lambda x: x[:, 1],
    lambda x: x[:, -1, :, 2],
    lambda x: x[..., -1],
    lambda x: x[2, 3, 4, 5],
    lambda x: x[:, 1:3, 1:4].transpose(1, 3)[:, 2:5],
    lambda x: x.permute(0, 2, 3, 1)[..., 1:].flatten(1),
    lambda x: x.permute(2, 0, 3, 1)[:, 1].reshape(-1),
]


@pytest.mark.parametrize("channels_last", [False, True])
def test_slice_and_select(channels_last: bool) -> None:
    check_op(_each(SLICES), [_input(3, 4, 5, 7, channels_last=channels_last)])


DEEP_SLICES: list[Function] = [
    lambda x: x[1:-1],
    lambda x: x[:, 0],
    lambda x: x[:, :, 1:2],
    lambda x: x[..., 1],
    lambda x: x[:, :, :, ::2, 1:],
    lambda x: x.transpose(1, 4)[:, 1:3].transpose(0, 2),
]


def test_slice_above_rank_four() -> None:
    check_op(_each(DEEP_SLICES), [_input(3, 4, 3, 5, 4)])


def test_slice_below_rank_three() -> None:
    few: list[Function] = [lambda x: x[..., 1:4], lambda x: x[..., ::3], lambda x: x[-1]]
    check_op(_each(few), [_input(5)])
    check_op(_each(few), [_input(3, 6)])


@pytest.mark.parametrize("batch", [1, 3])
def test_queries_keys_and_values_of_one_product(batch: int) -> None:
    """A view of rank 5 taken apart: the copies must not be seen in the result."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        n, length, width = x.shape
        x = (x * 2).reshape(n, length, 3, 2, width // 6).permute(2, 0, 3, 1, 4)
        q, k, v = x.unbind(0)
        return torch.relu(q), k + v, x[1:].flatten(0, 1) * 3

    check_op(function, [_input(batch, 5, 24)])


@pytest.mark.parametrize("channels_last", [False, True])
def test_split(channels_last: bool) -> None:
    def function(x: Tensor) -> list[Tensor]:
        x = x * 2
        parts = [
            *torch.split(x, 2, 1),
            *torch.split(x, [1, 3, 1], 1),
            *torch.split(x, 4, -1)[1:],
            *torch.chunk(x, 3, 2),
            *torch.unbind(x, 1),
            torch.unbind(x, -1)[2],
            *torch.tensor_split(x, 2, 3),
        ]
        return [torch.relu(part) for part in parts]

    check_op(function, [_input(3, 5, 6, 7, channels_last=channels_last)])


def test_channel_shuffle_of_a_split() -> None:
    def function(x: Tensor) -> Tensor:
        a, b = torch.relu(x).chunk(2, 1)
        y = torch.cat([a, b * 2], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w) + 1

    for channels_last in (False, True):
        check_op(function, [_input(3, 8, 5, 3, channels_last=channels_last)])


def test_integers_are_sliced() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    check_op(lambda x: (x[:, 1:, ::2], x[:, -1].to(torch.float32)), [x])


def test_dynamic_bounds() -> None:
    t = Dim("t", min=4, max=64)

    def function(x: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        length = x.shape[1]
        half = torch.relu(x)
        return (
            half[:, 1:] * 2,
            half[:, -3:] * 2,
            half[:, -1] * 2,
            half[:, length - 2 :] * 2,
            torch.relu(table)[:, :length] + x,
        )

    check_op(
        function,
        [_input(2, 9, 3), _input(1, 64, 3)],
        dynamic_shapes={"args": ({1: t}, None)},
        more_inputs=[[_input(2, 4, 3), _input(1, 64, 3)], [_input(2, 64, 3), _input(1, 64, 3)]],
    )


def test_results_that_nothing_reads_are_not_computed() -> None:
    check_op(lambda x: torch.relu(torch.split(x * 2, [2, 3, 1], 1)[1]), [_input(2, 6, 3)])


def test_parts_that_are_replaced() -> None:
    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        x = x * 2
        results = [
            torch.slice_scatter(x, y[:, :2], 1, 1, 3),
            torch.slice_scatter(x, y, 1, -9, 99),
            torch.slice_scatter(x, y[:, 3:], 1, -2),
            torch.slice_scatter(x.transpose(0, 1), y[:, :1].transpose(0, 1), 0, 0, 1),
            torch.select_scatter(x, y[:, 0], 1, 2),
            torch.select_scatter(x, y[0], 0, -1),
        ]
        z = x.clone()
        z[:, 1:3] = y[:, :1]
        z[0] = 5.0
        return [*results, z]

    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    check_op(function, [x, -x])
