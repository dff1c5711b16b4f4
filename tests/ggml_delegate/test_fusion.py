"""Activations that are computed with what feeds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ggml_delegate import ir
from tests.harness.ops import check_op, lower_ggml


def ops_of(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[str]:
    """The IR ops of the only partition of a model."""
    program, _, _ = lower_ggml(model.eval(), inputs)
    (delegate,) = program.executorch_program.execution_plan[0].delegates
    data = program.executorch_program.backend_delegate_data[delegate.processed.index].data
    return [ir.op_name(node) for node in ir.deserialize(bytes(data)).nodes]


class Residual(nn.Module):
    """The convolution's result is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return torch.relu(y) + y


@pytest.mark.parametrize(
    ("layer", "activation", "sizes", "ops"),
    [
        (nn.Conv2d(3, 8, 3), nn.ReLU6(), (1, 3, 7, 7), ["Conv2d"]),
        (nn.Conv2d(20, 20, 3, groups=20), nn.ReLU(), (2, 20, 7, 7), ["Conv2d"]),
        (nn.Conv2d(3, 3, 3, groups=3), nn.ReLU6(), (2, 3, 7, 7), ["Conv2d"]),
        (nn.Conv1d(6, 8, 1), nn.Hardtanh(-0.5, 0.25), (1, 6, 9), ["Conv2d"]),
        (nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), (1, 4, 5, 5), ["ConvTranspose2d"]),
        (nn.Linear(600, 30), nn.ReLU(), (5, 600), ["Linear"]),
        (nn.Linear(9, 5), nn.Sigmoid(), (5, 9), ["Linear", "Unary"]),
    ],
    ids=str,
)
def test_a_clamp_becomes_part_of_what_feeds_it(
    layer: nn.Module, activation: nn.Module, sizes: tuple[int, ...], ops: list[str]
) -> None:
    model = nn.Sequential(layer, activation)
    inputs = (4.0 * torch.randn(*sizes, generator=torch.Generator().manual_seed(2)),)
    assert ops_of(model, inputs) == ops
    check_op(model, inputs)


def test_a_result_that_something_else_reads_stays() -> None:
    inputs = (torch.randn(1, 4, 5, 5),)
    assert ops_of(Residual(), inputs) == ["Conv2d", "Unary", "Binary"]
    check_op(Residual(), inputs)


def test_only_one_activation_is_taken() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Hardtanh(-1, 0.5), nn.ReLU())
    inputs = (3.0 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2)),)
    assert ops_of(model, inputs) == ["Linear", "Unary"]
    check_op(model, inputs)
