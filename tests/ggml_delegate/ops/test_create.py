"""Tensors made from nothing, and arithmetic of integers that is known to fit 32 bits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.native import ExecuTorchError, NativeProgram
from tests.harness.ops import check_op, lower_ggml


def test_full_of_every_dtype_and_of_dynamic_sizes() -> None:
    def function(x: Tensor) -> list[Tensor]:
        sizes = (x.shape[0], 3)
        return [
            torch.full(sizes, 2.5) * x[:, :3],
            torch.full_like(x, -math.inf).maximum(x),
            torch.zeros_like(x) + x,
            torch.ones(sizes, dtype=torch.int64) * 3,
            torch.full(sizes, True) & (x[:, :3] > 0),
        ]

    n = Dim("n", min=1, max=9)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    check_op(
        function, [x], dynamic_shapes={"args": ({0: n},)}, more_inputs=[[x[:1]], [x.repeat(2, 1)]]
    )


def test_arange() -> None:
    def function(x: Tensor) -> list[Tensor]:
        return [
            torch.arange(5) + (x[:5] > 0),
            torch.arange(1.0, 6.0) * x[:5],
            torch.arange(10, 0, -2) * 2 - 1,
            torch.arange(0.5, 3, 0.5) + x[:5],
        ]

    check_op(function, [torch.randn(7, generator=torch.Generator().manual_seed(0))])


def test_arange_up_to_a_size() -> None:
    def function(x: Tensor) -> list[Tensor]:
        place = torch.arange(x.shape[0])
        rows = torch.arange(2 * x.shape[0] + 1, dtype=torch.float32)
        return [place, place * 2 + 1, rows + x[0], torch.where(place > 1, place, -1 * place)]

    n = Dim("n", min=2, max=40)
    check_op(
        function,
        [torch.randn(7)],
        dynamic_shapes={"args": ({0: n},)},
        more_inputs=[[torch.randn(2)], [torch.randn(40)]],
        may_be_constant=True,
    )


def test_unbounded_arange_is_refused() -> None:
    n = Dim("n", min=2, max=1 << 20)
    check_op(
        lambda x: x + torch.arange(x.shape[0]),
        [torch.randn(7)],
        dynamic_shapes={"args": ({0: n},)},
        delegated=False,
        reason="arange up to a size that may exceed",
    )


def test_arithmetic_of_32_bits_wraps_as_in_torch() -> None:
    i = torch.tensor([2**31 - 1, -(2**31), 5, -7], dtype=torch.int32)
    check_op(lambda i, j: (i + j, i - j, i * j, i + 1, 1 - i, i.minimum(j)), [i, i.flip(0)])


def test_arithmetic_of_64_bits_of_unknown_size_is_refused() -> None:
    check_op(
        lambda i: (i + i) * 2,
        [torch.tensor([2**31 - 1, 5])],
        delegated=False,
        reason="may exceed int32",
    )


def test_64_bits_that_turn_out_not_to_fit_are_an_error() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0).to(torch.int64) * 2_000_000_000 + 2_000_000_000

    program, recorder, _ = lower_ggml(Model(), [torch.randn(3)])
    assert not recorder.reasons
    native = NativeProgram(program.buffer)
    (small,) = native.run("forward", [torch.tensor([-1.0, -2.0, 0.0])])
    assert small.tolist() == [2_000_000_000] * 3
    with pytest.raises(ExecuTorchError, match="32 bits"):
        native.run("forward", [torch.tensor([1.0, -2.0, 0.0])])


def test_arithmetic_of_64_bits_that_fits() -> None:
    def function(x: Tensor) -> list[Tensor]:
        mask = x > 0
        place = (x > 0.5).to(torch.int64)
        return [mask * 3 + 2, (place - 1) * place, 5 - mask.to(torch.int64), mask.sum(1) + 1]

    check_op(function, [torch.randn(3, 9, generator=torch.Generator().manual_seed(0))])


def test_integers_become_floats_in_arithmetic() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    i = torch.tensor([1, -2, 3, 100000, 7])
    check_op(lambda x, i: (x + i, i * x, i / 3, x / i, i * 0.5, 2.5 - i), [x, i])
