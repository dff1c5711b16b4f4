"""Ops that XNNPACK takes written in others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from examples.models.layers import SqueezeExcite
from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.backends.xnnpack.expansions import EXPANDED
from orchestrator.program import LoweredProgram
from tests.harness.ops import relative_error
from tests.harness.quantized import allowed_outputs

ACTIVATIONS = {"aten.silu.default": nn.SiLU, "aten.hardsigmoid.default": nn.Hardsigmoid}
each = pytest.mark.parametrize("op", ACTIVATIONS)
BOTH = {"backends": ["ggml", "xnnpack"], "tune": "off"}


def _on_xnnpack(program: LoweredProgram, op: str) -> int:
    (method,) = program.report.methods
    parts = [part for part in method.partitions if part.backend == "xnnpack"]
    return sum(part.ops.get(op, 0) for part in parts)


def _assert_equal(program: LoweredProgram, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        got, want = program(x), model(x)
    assert relative_error(got, want) <= 1e-6
    assert got.stride() == want.stride()


def test_each_op_is_tried() -> None:
    assert ACTIVATIONS.keys() == {str(op) for op in EXPANDED}


@each
@pytest.mark.parametrize("backends", [["xnnpack"], ["ggml", "xnnpack"]], ids=",".join)
@pytest.mark.parametrize(
    "shape", [(3,), (2, 5), (1, 3, 7), (2, 3, 4, 5), (1, 2, 1, 3, 2, 4)], ids=str
)
def test_ranks(op: str, backends: list[str], shape: tuple[int, ...]) -> None:
    model = ACTIVATIONS[op]()
    pins = {op.split(".")[1]: "xnnpack"}
    program = lower(model, (torch.ones(shape),), backends=backends, pins=pins, tune="off")
    assert _on_xnnpack(program, op) == 1
    _assert_equal(program, model, 8 * torch.randn(shape))
    edges = torch.tensor([-1e20, -3.0, -0.0, 1e-30, 3.0, 1e20]).repeat(20)
    _assert_equal(program, model, edges[: torch.Size(shape).numel()].reshape(shape))


@each
@pytest.mark.parametrize(
    "x",
    [
        pytest.param(torch.ones(()), id="a number"),
        pytest.param(torch.ones(1, 2, 1, 2, 1, 2, 1), id="seven dims"),
        pytest.param(torch.ones(2, 3, dtype=torch.float16), id="float16"),
        pytest.param(torch.ones(2, 3, dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(torch.ones(2, 3, dtype=torch.float64), id="float64"),
    ],
)
def test_others_are_left_to_others(op: str, x: Tensor) -> None:
    model = ACTIVATIONS[op]()
    program = lower(model, (x,), **BOTH)
    assert _on_xnnpack(program, op) == 0
    assert relative_error(program(x), model(x)) <= (1e-6 if x.dtype.itemsize > 2 else 4e-3)


@each
def test_images_of_any_size_in_either_order(op: str) -> None:
    act = ACTIVATIONS[op]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), act(), nn.Conv2d(8, 8, 1), act()).eval()
    shapes = ({2: Dim("H", min=4, max=40), 3: Dim("W", min=4, max=40)},)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 12, 9).to(memory_format=layout)
        program = lower(model, (x,), dynamic_shapes=shapes, pins={"*": "xnnpack"}, **BOTH)
        assert _on_xnnpack(program, op) == 2
        for size in ((12, 9), (4, 40)):
            _assert_equal(program, model, torch.randn(2, 3, *size).to(memory_format=layout))


def test_a_quantized_block_is_one_call() -> None:
    x = torch.randn(1, 16, 20, 20)
    block = nn.Sequential(nn.Conv2d(16, 64, 1), nn.SiLU())
    block.append(SqueezeExcite(64, 16, nn.ReLU, nn.Hardsigmoid))
    model = pt2e(block.append(nn.Conv2d(64, 16, 1)), (x,))
    program = lower(model, (x,), **BOTH)
    (method,) = program.report.methods
    assert [part.backend for part in method.segments] == ["xnnpack"]
    given = torch.randn_like(x)
    (wanted,) = allowed_outputs(model, (given,))
    assert wanted.difference(program(given)) is None


def test_a_choice_by_price() -> None:
    # Two operators cost more than one, and the products are cheaper on XNNPACK.
    class Alone(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.nn.functional.silu(x)

    program = lower(Alone(), (torch.randn(1, 64, 64, 64),), **BOTH)
    assert _on_xnnpack(program, "aten.silu.default") == 0
