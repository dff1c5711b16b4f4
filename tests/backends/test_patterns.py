"""What patterns of pins and excludes name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, lower


class _Layers(nn.Module):
    """A layer without bias, which is decomposed where nothing wants it whole, and one with."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).tanh())


def places(program: LoweredProgram) -> dict[str, str]:
    """The backend of each op."""
    (method,) = program.report.methods
    return {op: part.backend for part in method.segments for op in part.ops}


@pytest.mark.parametrize("how", [{"exclude": {"linear": "ggml"}}, {"exclude": ["aten.linear*"]}])
def test_an_op_is_named_as_the_model_calls_it(how: dict[str, object]) -> None:
    """Though it is decomposed because of the pattern, and its parts go by other names."""
    x = torch.randn(3, 8)
    model = _Layers().eval()
    program = lower(model, (x,), backends=["ggml"], strategy="greedy", **how)  # type: ignore[arg-type]
    found = places(program)
    assert found.pop("aten.tanh.default") == "ggml"
    assert set(found.values()) == {"portable"}
    assert {"aten.mm.default", "aten.addmm.default"} <= found.keys()
    torch.testing.assert_close(program(x), model(x))


def test_a_module_that_is_decomposed_is_named_by_its_path() -> None:
    x = torch.randn(3, 8)
    pins = {"first": "portable"}
    program = lower(_Layers().eval(), (x,), backends=["ggml"], strategy="greedy", pins=pins)
    found = places(program)
    assert found["aten.mm.default"] == "portable"
    assert found["aten.linear.default"] == "ggml"
