"""Activations rounded to integers of their own scale: bit for bit as in eager PyTorch."""

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
from orchestrator import lower
from orchestrator.native import NativeProgram
from tests.harness.activations import INT8, PT2E, WAYS, PerRow, PerTensor
from tests.harness.changeable import ChangeableFile, changeable_file
from tests.harness.ops import check_op, rejections, relative_error

ways = pytest.mark.parametrize("way", WAYS)


@ways
@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 1), (2, 5, 33), (1, 8, 64), (40, 1000)], ids=str)
def test_any_sizes(way: str, sizes: tuple[int, ...]) -> None:
    x = torch.randn(sizes)
    check_op(WAYS[way](), [x], rtol=0, may_be_constant=True)


@ways
@pytest.mark.parametrize("limits", [(-128, 127), (-127, 127), (-8, 7), (0, 1)], ids=str)
def test_any_limits(way: str, limits: tuple[int, int]) -> None:
    check_op(WAYS[way](*limits), [torch.randn(6, 50)], rtol=0)


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "above 0": Tensor.abs,
    "below 0": lambda x: -x.abs(),
    "far from 0": lambda x: x + 1000,
    "huge": lambda x: x * 1e36,
    "tiny": lambda x: x * 1e-30,
    "all the same": lambda x: torch.full_like(x, 0.7),
    "zeros": torch.zeros_like,
    "halves of a step": lambda x: torch.cat(
        [(x * 4).round() / 2, torch.tensor([[0.0, 255]] * 6)], 1
    ),
    "rows of other sizes": lambda x: x * torch.logspace(-6, 6, len(x))[:, None],
}


@ways
@pytest.mark.parametrize("name", VALUES)
def test_any_values(way: str, name: str) -> None:
    x = VALUES[name](torch.randn(6, 50))
    model = WAYS[way]()
    check_op(model, [torch.randn_like(x)], more_inputs=[[x]], rtol=0, may_be_constant=True)


def test_a_number_that_is_none_leaves_other_rows() -> None:
    x = torch.randn(4, 20)
    x[2, 17] = math.nan
    check_op(PerRow(), [x], rtol=0, may_be_constant=True)
    check_op(PerTensor(), [torch.randn(4, 20)], more_inputs=[[x]], rtol=0, may_be_constant=True)


@ways
def test_any_number_of_rows(way: str) -> None:
    check_op(
        WAYS[way](),
        [torch.randn(7, 3, 40)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[torch.randn(size, 3, 40)] for size in (1, 2, 13, 300)],
        rtol=0,
    )


@ways
def test_what_is_quantized_may_be_read_otherwise(way: str) -> None:
    """Nothing is written over x while something reads it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rounded = WAYS[way]()

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = x.mT.relu()
            z = self.rounded(y)
            return y, z, z * y, self.rounded(z)

    check_op(Model(), [torch.randn(2, 17, 24)], rtol=1e-6)


def test_a_constant_that_is_read_elsewhere_too() -> None:
    """ExecuTorch gives each reader a copy; the first state of an LSTM taken apart is such a one."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rounded = PerTensor()
            self.register_buffer("state", torch.linspace(-1, 2, 60).reshape(3, 20))

        def forward(self, x: Tensor) -> Tensor:
            return self.rounded(self.state) + torch.atan2(x, self.state)  # which is no op of ggml

    x = torch.randn(3, 20)
    program = lower(Model(), (x,), backends=["ggml"])
    (method,) = program.report.methods
    assert [part.backend for part in method.segments] == ["portable", "ggml"]
    assert relative_error(program(x), Model()(x)) <= 1e-5


def test_layers_that_read_one_activation_share_its_integers() -> None:
    """Torchao quantizes it once for each of them."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return PerRow()(x) + 2 * PerRow()(x) + PerRow(-8, 7)(x)

    check_op(Model(), [torch.randn(3, 5)])
    program = changeable_file(Model(), [torch.randn(3, 5)]).program()
    assert [ir.op_name(node) for node in program.nodes].count("FakeQuantize") == 2


class _Read(nn.Module):
    """Reads what is inside a group from outside of it."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero = PT2E.choose_qparams.tensor(x, -128, 127, 2**-12, INT8)
        q = PT2E.quantize_per_tensor.tensor(x, scale, zero, -128, 127, INT8)
        inside = {"scale": scale, "zero point": zero, "integers": q}[self.what]
        y = PT2E.dequantize_per_tensor.tensor(q, scale, zero, -128, 127, INT8)
        return y, inside.to(torch.float32)


class _Swapped(nn.Module):
    """Dequantizes by the scale of another tensor."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        scale, zero = PT2E.choose_qparams.tensor(x, -128, 127, 2**-12, INT8)
        scale2, _ = PT2E.choose_qparams.tensor(other, -128, 127, 2**-12, INT8)
        q = PT2E.quantize_per_tensor.tensor(x, scale, zero, -128, 127, INT8)
        return PT2E.dequantize_per_tensor.tensor(q, scale2, zero, -128, 127, INT8)


REFUSED: dict[str, tuple[nn.Module, list[Tensor]]] = {
    "symmetric": (PerRow(mapping="SYMMETRIC"), [torch.randn(4, 8)]),
    "groups": (PerRow(block=[1, 4]), [torch.randn(4, 8)]),
    "columns": (PerRow(block=[4, 1]), [torch.randn(4, 8)]),
    "half": (PerRow(), [torch.randn(4, 8, dtype=torch.bfloat16)]),
    **{f"{what} read": (_Read(what), [torch.randn(4, 8)]) for what in ("scale", "integers")},
    "another scale": (_Swapped(), [torch.randn(4, 8), torch.randn(4, 8)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_group_is_refused(name: str) -> None:
    assert any("quantized activations" in reason for reason in rejections(*REFUSED[name]))


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file() -> ChangeableFile:
    return changeable_file(PerRow(), [torch.randn(3, 5)])


MUTATIONS: dict[str, Callable[[Any, Any], object]] = {
    "no range": lambda p, n: setattr(n.op, "low", n.op.high),
    "a range from above": lambda p, n: setattr(n.op, "low", 128),
    "integers beyond float32": lambda p, n: setattr(n.op, "high", 1 << 30),
    "no least scale": lambda p, n: setattr(n.op, "eps", 0.0),
    "a least scale below 0": lambda p, n: setattr(n.op, "eps", -1.0),
    "a least scale that is no number": lambda p, n: setattr(n.op, "eps", math.nan),
    "no input": lambda p, n: setattr(n, "inputs", []),
    "two inputs": lambda p, n: setattr(n, "inputs", n.inputs * 2),
    "another result": lambda p, n: setattr(
        p.tensors[p.outputs[0]], "dims", [ir.Dim(value=15, expr=-1)]
    ),
    "integers as input": lambda p, n: setattr(p.tensors[p.inputs[0]], "dtype", ir.DType.Int32),
    "a number": lambda p, n: [
        setattr(p.tensors[each], "dims", []) for each in (*p.inputs, *p.outputs)
    ],
}


def _run(mutate: Callable[[Any, Any], object]) -> None:
    program = _file().program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file().with_program(program)).run("forward", [torch.randn(3, 5)])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str) -> None:
    with pytest.raises(RuntimeError):
        _run(MUTATIONS[name])


def test_the_unchanged_file_runs() -> None:
    _run(lambda program, node: None)
