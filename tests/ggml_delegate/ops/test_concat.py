"""Concatenation and stacking against eager."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.harness.ops import check_op


def _input(*sizes: int, channels_last: bool = False, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randn(sizes)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("rank", range(1, 6))
def test_every_dim(rank: int) -> None:
    def function(x: Tensor) -> list[Tensor]:
        x = x * 2
        results = []
        for dim in range(-rank, rank):
            part = x.narrow(dim, 1, 2)
            results.append(torch.relu(torch.cat([x, part], dim) + 1))
        return results

    check_op(function, [_input(*[3, 4, 3, 5, 3][:rank])])


LAYOUTS = [(True, True), (True, False), (False, True), (True, True, False)]


@pytest.mark.parametrize("layouts", LAYOUTS)
def test_inputs_in_different_dim_orders(layouts: tuple[bool, ...]) -> None:
    inputs = [_input(3, 5, 4, 6, channels_last=layout, seed=i) for i, layout in enumerate(layouts)]

    def function(*xs: Tensor) -> list[Tensor]:
        return [torch.relu(torch.cat([x * 2 for x in xs], dim)) for dim in (1, 2)]

    check_op(function, inputs)


@pytest.mark.parametrize("channels_last", [False, True])
def test_any_number_of_tensors(channels_last: bool) -> None:
    def function(x: Tensor) -> list[Tensor]:
        parts = [torch.relu(x * (i + 1)) for i in range(19)]
        return [torch.cat(parts[:count], 1) + 1 for count in (1, 2, 8, 9, 17, 19)]

    check_op(function, [_input(2, 3, 4, 5, channels_last=channels_last)])


def test_one_tensor_more_than_once() -> None:
    check_op(lambda x: torch.cat([x, x * 2, x], 0), [_input(3, 4)])


@pytest.mark.parametrize("channels_last", [False, True])
def test_dense_block(channels_last: bool) -> None:
    def function(x: Tensor) -> Tensor:
        features = [torch.relu(x)]
        for i in range(10):
            features.append(torch.relu(torch.cat(features, 1)[:, -2:] * (1.5 - i % 2)))
        return torch.cat(features, 1)

    check_op(function, [_input(2, 4, 5, 5, channels_last=channels_last)])


def test_slices_are_read_where_they_are() -> None:
    """roll by hand, above rank 4 as well."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(x * 2)
        rolled = torch.cat([x[:, :, 2:], x[:, :, :2]], 2)
        deep = x.unsqueeze(1).unsqueeze(1)
        return rolled + 1, torch.cat([deep[..., 1:], deep[..., :1]], -1) + 1

    check_op(function, [_input(2, 3, 5, 4)])


def test_stack() -> None:
    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        return [torch.relu(torch.stack([x * 2, y], dim)) for dim in (0, 1, -1)]

    check_op(function, [_input(3, 4, 5), _input(3, 4, 5, seed=1)])


def test_integers() -> None:
    x = torch.arange(6).reshape(2, 3)
    check_op(lambda x: torch.cat([x, x[:, 1:]], 1), [x])


def test_tensors_of_different_dtypes_are_refused() -> None:
    check_op(
        lambda x, y: torch.cat([torch.relu(x), y]),
        [_input(3), torch.arange(3)],
        delegated=False,
        reason="int64 becomes float32",
    )


def test_dynamic_sizes() -> None:
    s, t = Dim("s", min=1, max=32), Dim("t", min=1, max=32)
    check_op(
        lambda x, y: torch.relu(torch.cat([x * 2, y], 1)),
        [_input(2, 5, 3), _input(2, 7, 3, seed=1)],
        dynamic_shapes={"args": ({1: s}, {1: t})},
        more_inputs=[[_input(2, 1, 3), _input(2, 32, 3)], [_input(2, 9, 3), _input(2, 1, 3)]],
    )
