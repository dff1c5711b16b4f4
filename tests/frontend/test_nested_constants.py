"""Constants inside a delegate that others read in lists, and that programs return."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import export

from orchestrator import OrchestratorPartitioner, PlanOptions, lower
from orchestrator.native import NativeProgram


class Shared(nn.Module):
    """A weight, a buffer outside the state dict and a constant, each used alone and in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6))
        self.register_buffer("bias", torch.linspace(1, 2, 6), persistent=False)
        self.register_buffer("rows", torch.tensor([2, 0, 1]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        product = nn.functional.linear(x, self.weight)
        more = torch.cat([self.weight, x + self.bias, self.weight])
        some = torch.stack([self.bias, x[0] * self.bias])
        factor = torch.tensor([0.5, 1.5, 2.5, 3.5])
        picked = more[self.rows] + self.rows.reshape(3, 1).float()
        return product * factor, more, some, picked, self.weight, self.bias, factor, self.rows


PLANS: tuple[tuple[list[str], Mapping[str, str]], ...] = (
    (["ggml"], {"*": "ggml"}),
    (["ggml", "xnnpack"], {"*linear*": "xnnpack", "*cat*": "ggml", "*add*": "ggml"}),
    (["ggml", "xnnpack"], {"*linear*": "ggml", "*cat*": "xnnpack", "*add*": "xnnpack"}),
    (["xnnpack"], {}),
    ([], {}),
)


@pytest.mark.parametrize(("backends", "pins"), PLANS)
def test_they_are_what_they_were(backends: list[str], pins: Mapping[str, str]) -> None:
    model, x = Shared().eval(), torch.linspace(-2, 2, 18).reshape(3, 6)
    program = lower(model, (x,), backends=backends, pins=pins)
    for got, want in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(got, want)


def test_the_documented_flow_keeps_them_outside() -> None:
    model, x = Shared().eval(), torch.linspace(-2, 2, 18).reshape(3, 6)
    partitioner = OrchestratorPartitioner(["ggml"], options=PlanOptions(strategy="greedy"))
    edge = to_edge_transform_and_lower(export(model, (x,)), partitioner=[partitioner])
    program = NativeProgram(edge.to_executorch().buffer)
    assert program.backends()
    for got, want in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backends", [[], ["ggml"]], ids=["kernels", "ggml"])
def test_they_lie_in_the_file_once(backends: list[str]) -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cat([x, self.weight]), torch.stack([self.weight, x])

    model = Lists().eval()
    pins = dict.fromkeys(["*"][: len(backends)], "ggml")
    buffer = lower(model, (torch.randn(64, 64),), backends=backends, pins=pins).buffer
    assert buffer.count(model.weight.detach().numpy().tobytes()) == 1
