"""Reshapes, permutations, expansions, repetitions and copies against eager.

One program holds many cases, one output each: exporting takes far longer than running.
"""

from __future__ import annotations

import itertools
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
    return lambda x: [torch.relu(function(x * 2) + 1) for function in functions]


VIEWS = {
    (6,): [(2, 3), (6, 1, 1), (1, 6)],
    (3, 4): [(12,), (4, 3), (2, 2, 3), (3, 1, 4)],
    (3, 5, 7): [(3, 35), (15, 7, 1, 1), (1, 105), (3, 5, 1, 7), (7, 5, 3)],
    (1, 3, 8, 5): [(3, 40), (1, 3, 40), (1, 24, 5), (1, 3, 2, 4, 5), (3, 8, 5), (120,)],
    (3, 4, 5, 6): [(3, -1), (3, 4, 30), (12, 5, 6), (3, 2, 2, 5, 6), (3, 4, 5, 2, 3), (6, 60)],
    (3, 1, 5, 1): [(3, 5), (3, 1, 5), (1, 3, 1, 5), (15, 1, 1, 1)],
    (2, 3, 4, 5, 6): [(6, 20, 6), (2, 3, 4, 30), (720,), (2, 3, 2, 2, 5, 2, 3)],
    (2, 3, 1, 2, 1, 3, 2, 2): [(12, 12), (2, 3, 2, 3, 4), (2, 3, 1, 2, 3, 1, 2, 2)],
}


@pytest.mark.parametrize("sizes", VIEWS)
def test_view(sizes: tuple[int, ...]) -> None:
    views = _each([lambda x, target=target: x.reshape(target) for target in VIEWS[sizes]])
    check_op(views, [_input(*sizes)])
    if len(sizes) == 4:
        check_op(views, [_input(*sizes, channels_last=True)])


def test_view_of_one_element() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(x) * 2
        return x.reshape(1, 1, 1), x.reshape(()), x.reshape(()).reshape(1)

    check_op(function, [torch.tensor([3.5])])


def _stages(x: Tensor) -> tuple[Tensor, ...]:
    """Orders of memory that one reshape after another has to see through."""
    x = torch.relu(x + 1)
    tokens = x.flatten(2).transpose(1, 2)
    heads = tokens.reshape(tokens.shape[0], tokens.shape[1], 2, -1).transpose(1, 2)
    merged = heads.transpose(1, 2).reshape(tokens.shape)
    grid = merged.transpose(1, 2).reshape(x.shape)
    return tokens, heads, merged, grid


def _windows(x: Tensor) -> Tensor:
    """Swin's window partition: rank 6 between two views."""
    n, h, w, c = x.shape
    x = torch.relu(x).view(n, h // 2, 2, w // 3, 3, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, c) + 1


@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_heads_and_windows(batch: int) -> None:
    check_op(_stages, [_input(batch, 6, 3, 5)])
    check_op(_stages, [_input(batch, 6, 3, 5, channels_last=True)])
    check_op(_windows, [_input(batch, 4, 9, 5)])


def test_permute_of_any_rank() -> None:
    def function(x: Tensor) -> list[Tensor]:
        x = torch.relu(x + 1)
        results = []
        for rank in range(1, 9):
            sizes = [2, 3, 1, 2, 3, 2, 1, 2][: rank - 1]
            y = x.reshape([*sizes, -1])
            results.append(y.permute(list(reversed(range(rank)))) * 2)
        return results

    check_op(function, [_input(144)])


REARRANGEMENTS: list[Function] = [
    lambda x: x.transpose(1, -1),
    lambda x: x.permute(0, 2, 3, 1),
    lambda x: x.permute(3, -2, 0, 1),
    lambda x: x.mT,
    lambda x: x.movedim(1, -1),
    lambda x: x.permute(0, 2, 3, 1).permute(2, 0, 3, 1),
    lambda x: x[0, 0].t(),
    lambda x: x[0, 0, 0].t(),
    lambda x: x.unsqueeze(0).unsqueeze(-1).unsqueeze(2),
    lambda x: x[:, :1].squeeze(1),
    lambda x: x[:1, :, :1].squeeze(),
    lambda x: x[:1, :, :1].squeeze((0, 2)),
    lambda x: x.squeeze(2),
    lambda x: x.unflatten(1, (1, -1)),
]


@pytest.mark.parametrize("channels_last", [False, True])
def test_rearrangements(channels_last: bool) -> None:
    check_op(_each(REARRANGEMENTS), [_input(3, 4, 5, 7, channels_last=channels_last)])


@pytest.mark.parametrize("sizes", [(2, 17, 3, 35), (1, 33, 20, 50), (3, 1, 16, 400)])
def test_every_permutation_moves_every_element(sizes: tuple[int, ...]) -> None:
    # Sizes around the kernel's square tiles; the larger ones are shared out to threads.
    orders = list(itertools.permutations(range(4)))
    check_op(
        lambda x: tuple((-x).permute(order).contiguous() for order in orders),
        (torch.randn(sizes, generator=torch.Generator().manual_seed(1)),),
        rtol=0,
    )


def test_square_permutations_of_one_tensor_are_told_apart() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(x + 1)
        y = x.permute(2, 0, 1)
        return x.reshape(16, 4), y.reshape(16, 4), y.permute(2, 0, 1).reshape(16, 4)

    check_op(function, [_input(4, 4, 4)])


EXPANSIONS = [
    ((60,), (2, 60)),
    ((3, 20, 1), (3, -1, 4)),
    ((60,), (2, 3, 60)),
    ((1, 60, 1, 1), (2, 60, 5, 4)),
    ((1, 1, 12, 5), (2, 3, 12, 5)),
    ((3, 1, 20, 1), (-1, 6, -1, 7)),
    ((5, 1, 3, 1, 4), (5, 4, 3, 5, 4)),
]


def test_expand() -> None:
    check_op(
        _each([lambda x, a=a, b=b: x.reshape(a).expand(b) for a, b in EXPANSIONS]), [_input(60)]
    )
    check_op(_each([lambda x: x.expand(5, 2)]), [torch.tensor(2.5)], may_be_constant=True)


@pytest.mark.parametrize("groups", [1, 3])
def test_heads_repeated_for_groups(groups: int) -> None:
    def function(x: Tensor) -> Tensor:
        n, heads, length, width = x.shape
        x = torch.relu(x)[:, :, None].expand(n, heads, groups, length, width)
        return x.reshape(n, heads * groups, length, width) + 1

    check_op(function, [_input(2, 2, 5, 3)])


REPETITIONS = [
    ((60,), (2,)),
    ((3, 20), (1, 2)),
    ((3, 20), (2, 1)),
    ((3, 20), (2, 1, 3)),
    ((3, 4, 5), (1, 1, 1)),
    ((2, 3, 2, 5), (1, 2, 1, 2)),
    ((3, 5, 2, 2), (2, 2, 2, 2)),
    ((1, 10, 1, 2, 3), (1, 2, 3, 1, 2)),
]


def test_repeat() -> None:
    check_op(
        _each([lambda x, a=a, b=b: x.reshape(a).repeat(b) for a, b in REPETITIONS]), [_input(60)]
    )
    x = _input(2, 3, 4, 5, channels_last=True)
    check_op(_each([lambda x: x.repeat(2, 1, 3, 1), lambda x: x.repeat(1, 2, 1, 2)]), [x])


def test_repeat_in_too_many_ways_is_refused() -> None:
    check_op(
        lambda x: torch.relu(x).repeat(2, 2, 2, 2, 2),
        [_input(2, 2, 2, 2, 2)],
        delegated=False,
        reason="repeats in 10 ways",
    )


COPIES: list[Function] = [
    lambda x: x.clone(),
    lambda x: x.clone(memory_format=torch.channels_last),
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: x.to(memory_format=torch.channels_last),
    lambda x: x.permute(0, 2, 3, 1).contiguous(),
    lambda x: x.detach(),
    lambda x: torch.nn.functional.dropout(x, 0.5, training=False),
]


@pytest.mark.parametrize("channels_last", [False, True])
def test_copies_in_any_dim_order(channels_last: bool) -> None:
    x = _input(2, 3, 4, 5, channels_last=channels_last)
    check_op(lambda x: [copy(torch.relu(x + 1)) for copy in COPIES], [x])
    check_op(lambda x: [torch.relu(copy(x) + 1) for copy in COPIES], [x])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool])
def test_integers_become_floats(dtype: torch.dtype) -> None:
    x = torch.tensor([[-3, 0, 7], [2**24, -(2**24), 1]]).to(dtype)
    check_op(lambda x: torch.relu(x.to(torch.float32)), [x])


def test_floats_become_integers() -> None:
    x = torch.tensor([[-3.7, 0.0, 7.9], [0.5, -0.5, 1e6]])
    check_op(lambda x: ((x * 1).to(torch.int32), (x * 1).to(torch.bool)), [x])


def test_floats_that_become_64_bit_integers_are_refused() -> None:
    check_op(
        lambda x: torch.relu(x).to(torch.int64),
        [_input(3, 4)],
        delegated=False,
        reason="float32 to int64",
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integers_are_rearranged(dtype: torch.dtype) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x.transpose(0, 1).reshape(2, 6).repeat(2, 1)
        return y, y.expand(3, 4, 6), torch.relu(y.to(torch.float32))

    check_op(function, [torch.arange(12).reshape(3, 4).to(dtype)])


def test_dynamic_sizes() -> None:
    n, t = Dim("n", min=1, max=8), Dim("t", min=2, max=64)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(x + 1)
        batch, length, _ = x.shape
        heads = x.view(batch, length, 2, 3).transpose(1, 2)
        return heads.transpose(1, 2).reshape(batch * length, 6), x[:, :1].expand(-1, length, -1)

    check_op(
        function,
        [_input(3, 7, 6)],
        dynamic_shapes={"args": ({0: n, 1: t},)},
        more_inputs=[[_input(1, 2, 6)], [_input(8, 64, 6)], [_input(3, 7, 6)]],
    )
