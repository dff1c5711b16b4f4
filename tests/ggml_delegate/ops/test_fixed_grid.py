"""Activations of fixed scales: integers bit for bit as in eager PyTorch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from ggml_delegate import ir
from orchestrator.native import NativeProgram
from tests.harness.activations import INT8, Grid, dequantize, quantize
from tests.harness.changeable import ChangeableFile, changeable_file
from tests.harness.ops import check_op, rejections

UINT8 = torch.uint8
GRIDS: dict[str, Grid] = {
    "int8": (0.031, -7, -128, 127, INT8),
    "a symmetric one": (0.031, 0, -127, 127, INT8),
    "its zero at an end": (0.02, -128, -128, 127, INT8),
    "4 bits": (0.3, 1, -8, 7, INT8),
    "uint8": (0.031, 113, 0, 255, UINT8),
    "a scale that float32 rounds": (1 / 3, 5, -128, 127, INT8),
    "a tiny scale": (1e-30, 5, -128, 127, INT8),
    "a huge scale": (1e30, 5, -128, 127, INT8),
}
grids = pytest.mark.parametrize("name", GRIDS)


def values(grid: Grid) -> Tensor:
    """Numbers inside and outside of a grid, and halves of its steps."""
    scale, zero, low, high, _ = grid
    steps = torch.arange(2 * (low - zero) - 9, 2 * (high - zero) + 10) / 2
    inside = torch.randn(501) * (high - low) / 4
    return torch.cat([steps, inside, torch.tensor([0.0, 1e4, -1e4])]) * scale


@grids
def test_integers(name: str) -> None:
    grid = GRIDS[name]
    x = values(grid)
    check_op(lambda x: quantize(x, grid), [x], rtol=0)


@grids
def test_floats_of_integers(name: str) -> None:
    """Also of those beyond the grid's limits."""
    grid = GRIDS[name]
    room = torch.iinfo(grid[-1])
    integers = torch.arange(room.min, room.max + 1, dtype=grid[-1])
    check_op(lambda q: dequantize(q, grid), [integers], rtol=0)


@grids
def test_there_and_back(name: str) -> None:
    grid = GRIDS[name]
    check_op(lambda x: dequantize(quantize(x, grid), grid), [values(grid)], rtol=0)


@pytest.mark.parametrize(
    "sizes", [(), (1,), (2, 3, 5, 7), (1, 3, 8, 8), (2, 1, 2, 1, 2, 33)], ids=str
)
def test_any_sizes(sizes: tuple[int, ...]) -> None:
    grid = GRIDS["int8"]

    def model(x: Tensor) -> tuple[Tensor, ...]:
        q = quantize(x, grid)
        return q, dequantize(q, grid), dequantize(quantize(x.neg(), grid), grid)

    check_op(model, [torch.randn(sizes)], rtol=0)


def test_numbers_that_are_none() -> None:
    """Eager PyTorch on x86 makes integers 0 of them."""
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf] * 5)
    grid = GRIDS["uint8"]
    check_op(lambda x: quantize(x, grid), [torch.randn(20)], more_inputs=[[x]], rtol=0)
    check_op(
        lambda x: dequantize(quantize(x, grid), grid), [torch.randn(20)], more_inputs=[[x]], rtol=0
    )


def test_dynamic_sizes_and_layouts() -> None:
    """Integers cross the boundary as they lie, and inside an image may be channels-last."""
    grid = GRIDS["int8"]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, q: Tensor) -> tuple[Tensor, Tensor]:
            y = quantize(self.conv(dequantize(q, grid)), grid)
            return y, dequantize(y, grid).permute(0, 2, 3, 1)

    def image(n: int, h: int, w: int) -> Tensor:
        return torch.randint(-128, 128, (n, 3, h, w), dtype=INT8)

    last = image(3, 9, 11).to(memory_format=torch.channels_last)
    check_op(
        Model(),
        [image(2, 8, 6)],
        dynamic_shapes=({0: Dim("n", min=1, max=4), 2: Dim("h", max=32), 3: Dim("w", max=32)},),
        more_inputs=[[image(1, 5, 17)], [last.contiguous()]],
        rtol=0.032,  # a step: sums of floats may fall to either side
    )


def ops_of(model: nn.Module, *inputs: Tensor) -> list[str]:
    return [ir.op_name(node) for node in changeable_file(model, inputs).program().nodes]


class Chain(nn.Module):
    """Two activations; `read`: the first's integers are a result as well. `other`: not one grid."""

    def __init__(self, read: bool = False, other: bool = False) -> None:
        super().__init__()
        self.read, self.other = read, other

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        one = GRIDS["int8"]
        q = quantize(x, one)
        y = dequantize(q, GRIDS["a symmetric one"] if self.other else one)
        z = dequantize(quantize(y + dequantize(q, one), one), one)
        return (z, q) if self.read else (z,)


def test_no_integers_are_stored_between_two_ops() -> None:
    x = torch.randn(4, 9)
    for model in (Chain(), Chain(read=True), Chain(other=True)):
        check_op(model, [x], rtol=0)
    assert ops_of(Chain(), x) == ["RoundToGrid", "Binary", "RoundToGrid"]
    assert ops_of(Chain(read=True), x) == ["Quantize", "RoundToGrid", "Binary", "RoundToGrid"]
    assert "Quantize" in ops_of(Chain(other=True), x)


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "int16": lambda x: quantize(x, (0.1, 0, -32768, 32767, torch.int16)),
    "no scale": lambda x: quantize(x, (0.0, 0, -128, 127, INT8)),
    "limits beyond the dtype": lambda x: quantize(x, (0.1, 0, -300, 127, INT8)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return REFUSED[name](x)

    assert rejections(Model(), [torch.randn(4)])


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file() -> ChangeableFile:
    return changeable_file(Chain(read=True, other=True), [torch.randn(3, 5)])


def _grids(program: Any) -> list[Any]:
    return [node.op.grid for node in program.nodes if hasattr(node.op, "grid")]


def _all(name: str, value: object) -> Callable[[Any], None]:
    def change(program: Any) -> None:
        for grid in _grids(program):
            setattr(grid, name, value)

    return change


def _no_grid(program: Any) -> None:
    for node in program.nodes:
        if hasattr(node.op, "grid"):
            node.op.grid = None


def _result(dtype: int) -> Callable[[Any], None]:
    def change(program: Any) -> None:
        (made,) = (node for node in program.nodes if ir.op_name(node) == "Quantize")
        program.tensors[made.outputs[0]].dtype = dtype

    return change


def _floats_dequantized(program: Any) -> None:
    for node in program.nodes:
        if ir.op_name(node) == "Dequantize":
            node.inputs = [program.inputs[0]]


def _integers_quantized(program: Any) -> None:
    program.tensors[program.inputs[0]].dtype = ir.DType.Int8


MUTATIONS: dict[str, Callable[[Any], None]] = {
    "no grid": _no_grid,
    "no scale": _all("scale", 0.0),
    "a scale below 0": _all("scale", -1.0),
    "a scale that is no number": _all("scale", math.nan),
    "an endless scale": _all("scale", 1e300),
    "a scale of no inverse": _all("scale", 1e-300),
    "no range": _all("low", 127),
    "limits beyond float32": _all("high", 1 << 30),
    "limits beyond the dtype": _all("high", 300),
    "a zero beyond float32": _all("zeroPoint", 1 << 30),
    "floats as integers": _result(ir.DType.Float32),
    "integers of another sign": _result(ir.DType.UInt8),
    "floats dequantized": _floats_dequantized,
    "integers quantized": _integers_quantized,
}


def _run(mutate: Callable[[Any], object]) -> None:
    program = _file().program()
    mutate(program)
    NativeProgram(_file().with_program(program)).run("forward", [torch.randn(3, 5)])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str) -> None:
    with pytest.raises(RuntimeError):
        _run(MUTATIONS[name])


def test_the_unchanged_file_runs() -> None:
    _run(lambda program: None)
