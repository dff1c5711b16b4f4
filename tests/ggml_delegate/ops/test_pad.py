"""Padding with a constant against eager."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.nn import functional

from tests.harness.ops import check_op


def _input(*sizes: int, channels_last: bool = False) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(sizes)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


PADS = {
    (5,): [(1, 2)],
    (3, 5): [(0, 3), (0, 0, 2, 1), (0, 0, 0, 0)],
    (3, 4, 5): [(1, 0), (0, 0, 1, 0, 2, 3)],
    (1, 3, 4, 5): [(1, 2, 3, 4)],
    (3, 4, 5, 7): [(0, 0, 0, 0, 1, 2), (2, 1, 0, 1, 1, 0, 0, 2), (0, 0, 1, 1)],
    (2, 3, 2, 3, 4): [(1, 1, 0, 2, 1, 0), (0, 0, 0, 0, 0, 0, 2, 1)],
}


@pytest.mark.parametrize("sizes", PADS)
def test_constant(sizes: tuple[int, ...]) -> None:
    def function(x: Tensor) -> list[Tensor]:
        x = torch.relu(x * 2)
        return [
            functional.pad(x, pads, value=value) + 1
            for pads in PADS[sizes]
            for value in (0.0, -1.5)
        ]

    check_op(function, [_input(*sizes)])
    if len(sizes) == 4:
        check_op(function, [_input(*sizes, channels_last=True)])


def test_infinite_padding() -> None:
    inputs = [_input(3, 4)]
    check_op(lambda x: functional.pad(torch.relu(x), (1, 1), value=-math.inf).exp(), inputs)


def test_padding_of_a_slice() -> None:
    check_op(lambda x: functional.pad(torch.relu(x)[:, 1:3, :-1], (1, 2)) + 1, [_input(3, 4, 5)])


def test_integers_and_bools() -> None:
    x = torch.arange(6).reshape(2, 3)
    check_op(lambda x: functional.pad(x, (1, 1), value=-7), [x])
    check_op(lambda x: functional.pad(x, (1, 1), value=1), [x > 2])


def test_negative_padding_cuts_off() -> None:
    def function(x: Tensor) -> list[Tensor]:
        cases = [(-1, 2), (0, -2), (-1, -1, 2, -1), (1, 1, -1, 0)]
        return [functional.pad(torch.relu(x), pads, value=0.5) + 1 for pads in cases]

    check_op(function, [_input(3, 4, 5)])


def test_dynamic_sizes() -> None:
    t = Dim("t", min=1, max=32)
    check_op(
        lambda x: functional.pad(torch.relu(x), (0, 0, 2, 1)) * 2,
        [_input(2, 5, 3)],
        dynamic_shapes={"args": ({1: t},)},
        more_inputs=[[_input(2, 1, 3)], [_input(2, 32, 3)]],
    )
