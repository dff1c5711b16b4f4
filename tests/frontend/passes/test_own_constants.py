"""Constants that several delegates, or quantized layers, read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.frontend.passes import own_constants


class Tokens(nn.Module):
    """One parameter that is joined, twice, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(torch.cat([self.first, x], 1))
        x = self.b(torch.cat([x, self.first], 1))
        return x + self.first


class Twice(nn.Module):
    """A recurrent layer that runs twice, and whose weight something else reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(x)[0].relu()
        return self.rnn(x)[0] + self.rnn.weight_hh_l0[:1]


def test_delegates_may_share_what_is_read_in_lists() -> None:
    x = torch.randn(1, 5, 8)
    pins = {"a": "xnnpack", "b": "ggml", "aten.cat.default": "xnnpack", "aten.add.Tensor": "ggml"}
    for model, where in ((Tokens(), pins), (Twice(), {"aten.relu.default": "xnnpack"})):
        program = lower(model.eval(), (x,), backends=["ggml", "xnnpack"], pins=where)
        assert len(program.plan["forward"].partitions) > 1
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_program_without_them_stays_as_it_is() -> None:
    program = torch.export.export(nn.Linear(3, 3), (torch.randn(2, 3),))
    assert own_constants(program) is program
