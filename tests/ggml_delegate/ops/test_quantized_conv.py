"""Convolutions with weights of integers: what eager PyTorch gives with the weight expanded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from ggml_delegate import ir
from orchestrator.native import NativeProgram
from tests.harness.changeable import ChangeableFile, changeable_file, set_input
from tests.harness.integer_weights import Convolution
from tests.harness.ops import check_op, lower_ggml, rejections

SHAPES: dict[str, tuple[Callable[..., Convolution], tuple[int, ...]]] = {
    "1x1": (functools.partial(Convolution, (5, 7, 1, 1)), (2, 7, 6, 5)),
    "1x1 of one pixel": (functools.partial(Convolution, (33, 40, 1, 1)), (1, 40, 1, 1)),
    "3x3, padded": (functools.partial(Convolution, (20, 3, 3, 3), padding=1), (2, 3, 9, 7)),
    "strided": (functools.partial(Convolution, (16, 5, 3, 2), stride=(2, 3)), (1, 5, 11, 10)),
    "dilated": (functools.partial(Convolution, (4, 6, 3, 3), dilation=2, relu=True), (1, 6, 9, 9)),
    "deep": (functools.partial(Convolution, (17, 150, 3, 3)), (1, 150, 4, 4)),
    "a signal": (functools.partial(Convolution, (9, 4, 5), stride=2, padding=2), (3, 4, 21)),
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scheme", ["channel", "channel, zero points", "tensor", "affine"])
def test_it_equals_eager(scheme: str, bits: int) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = (make(scheme, bits=bits) for make, _ in SHAPES.values())
            self.layers = nn.ModuleList(made)

        def forward(self, *xs: Tensor) -> list[Tensor]:
            return [layer(x) for layer, x in zip(self.layers, xs, strict=True)]

    check_op(Several(), [torch.randn(sizes) for _, sizes in SHAPES.values()])


def test_dynamic_sizes() -> None:
    check_op(
        Convolution((10, 3, 3, 3), stride=2, padding=1),
        [torch.randn(2, 3, 12, 10)],
        dynamic_shapes=(
            {0: Dim("n", max=4), 2: Dim("h", min=3, max=40), 3: Dim("w", min=3, max=40)},
        ),
        more_inputs=[[torch.randn(1, 3, 7, 33)], [torch.randn(4, 3, 40, 9)]],
    )


@pytest.mark.parametrize(("bits", "per_element"), [(8, 1.0), (4, 0.5)])
def test_the_file_holds_the_integers(bits: int, per_element: float) -> None:
    model = Convolution((64, 64, 3, 3), bits=bits)
    program, _, _ = lower_ggml(model.eval(), [torch.randn(1, 64, 6, 6)])
    packed = 64 * 64 * 9 * per_element + 64 * 8
    assert packed < len(program.buffer) < packed + 4_000


@pytest.mark.parametrize(
    "model",
    [
        Convolution((8, 1, 3, 3), groups=8),
        Convolution((8, 4, 3, 3), transposed=True),
    ],
    ids=["depthwise", "transposed"],
)
def test_others_are_left(model: nn.Module) -> None:
    reasons = rejections(model, [torch.randn(1, 8, 6, 6)])
    assert any("of depthwise and transposed weights, ggml takes floats" in each for each in reasons)


# ---- files that say something else ---------------------------------------------------------

_X, _WEIGHT, _BIAS, _SCALES, _ZEROS = range(5)


@functools.cache
def _file() -> ChangeableFile:
    model = Convolution((20, 3, 3, 3), "channel, zero points")
    return changeable_file(model, [torch.randn(1, 3, 5, 5)])


MUTATIONS: dict[str, Callable[[Any, Any], object]] = {
    "other bits": lambda p, n: setattr(n.op.integers, "bits", 5),
    "4 bits": lambda p, n: setattr(n.op.integers, "bits", 4),
    "groups": lambda p, n: setattr(n.op.integers, "group", 9),
    "no integers": lambda p, n: setattr(n.op, "integers", None),
    "depthwise": lambda p, n: setattr(n.op, "algorithm", ir.ConvAlgorithm.Depthwise),
    "scales absent": set_input(_SCALES, None),
    "scales of integers": set_input(_SCALES, _ZEROS),
    "the zero points are the bias": set_input(_ZEROS, _BIAS),
    "the bias is the scales": set_input(_BIAS, _SCALES),
    "too many inputs": lambda p, n: n.inputs.append(n.inputs[0]),
}


def _run(mutate: Callable[[Any, Any], object]) -> None:
    program = _file().program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file().with_program(program)).run("forward", [torch.randn(1, 3, 5, 5)])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str) -> None:
    with pytest.raises(RuntimeError):
        _run(MUTATIONS[name])


def test_the_unchanged_file_runs() -> None:
    _run(lambda program, node: None)
