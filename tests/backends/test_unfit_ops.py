"""What XNNPACK or ExecuTorch's kernels would get wrong goes elsewhere (found by random graphs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import nn

import orchestrator

_GENERATOR = torch.Generator().manual_seed(0)


def _noise(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=_GENERATOR)


_LAST = {"memory_format": torch.channels_last}
_KERNEL = _noise(3, 2, 3, 2)
_ROW, _RIGHT, _SLOPE = _noise(5), _noise(4, 5), _noise(1)
# By name: a function, its input, the backends, and who may not take the op.
CASES: dict[str, tuple[Callable[..., Any], torch.Tensor, tuple[str, ...], str]] = {
    "addmm with alpha": (
        lambda x: torch.addmm(_ROW, x, _RIGHT, alpha=0.5),
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "addmm with beta": (
        lambda x: torch.addmm(_ROW, x, _RIGHT, beta=-2),
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "addmm of a broadcast number": (
        lambda x: torch.addmm(_SLOPE, x, _RIGHT),
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "cumsum of a number": (
        lambda x: (x * 2).cumsum(-1),
        torch.tensor(1.5),
        ("ggml", "xnnpack"),
        "portable",
    ),
    "GELU by tanh": (
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "slice that starts before its input": (
        lambda x: x[:, -7:3],
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "prelu of a matrix": (
        lambda x: torch.prelu(x, _SLOPE),
        _noise(3, 4),
        ("ggml", "xnnpack"),
        "xnnpack",
    ),
    "prelu of a number by itself": (
        lambda x: torch.prelu(x, x),
        _noise(1),
        ("xnnpack",),
        "xnnpack",
    ),
    "addmm of three times the same": (
        lambda x: torch.addmm(x, x, x),
        _noise(4, 4),
        ("ggml", "xnnpack"),
        "xnnpack",
    ),
    "convolution of an image with itself": (
        lambda x: torch.nn.functional.conv2d(x, x),
        _noise(3, 3, 3, 3),
        ("ggml", "xnnpack"),
        "xnnpack",
    ),
    "hardtanh with one bound": (
        lambda x: torch.ops.aten.hardtanh.default(x, -0.5),
        _noise(3, 4),
        ("xnnpack",),
        "xnnpack",
    ),
    "average pool of a lone image": (
        lambda x: torch.nn.functional.avg_pool2d(x, 2),
        _noise(3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "max pool of a lone image": (
        lambda x: torch.nn.functional.max_pool2d(x, 2),
        _noise(3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "transposed convolution that pads its output by its stride": (
        lambda x: torch.nn.functional.conv_transpose2d(
            x, _KERNEL, stride=(1, 2), output_padding=1, dilation=2
        ),
        _noise(2, 3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "resize by a factor that its sizes round": (
        lambda x: torch.nn.functional.interpolate(x, scale_factor=1.5, mode="bilinear"),
        _noise(2, 3, 7, 9),
        ("xnnpack",),
        "xnnpack",
    ),
    "channels-last order of an image with one channel": (
        lambda x: x.clone(**_LAST).sin(),
        _noise(3, 1, 7, 7),
        ("ggml", "xnnpack"),
        "portable",
    ),
    "channels-last order of an image of one column": (
        lambda x: x.clone(**_LAST).sin(),
        _noise(3, 1, 7, 1),
        ("ggml", "xnnpack"),
        "portable",
    ),
    "copy that need not block": (
        lambda x: torch.ops.aten.copy.default(x, _ROW, True).sin(),
        _noise(3, 5),
        ("ggml", "xnnpack"),
        "portable",
    ),
    "softmax along the rows of an image in channels-last": (
        lambda x: x.softmax(3),
        _noise(5, 8, 7, 4).to(**_LAST),
        ("xnnpack",),
        "xnnpack",
    ),
    "max along a dim that goes": (
        lambda x: x.max(3).values,
        _noise(2, 3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "max along a dim from the end": (
        lambda x: x.max(-1, keepdim=True).values,
        _noise(2, 3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "max along the channels": (
        lambda x: x.max(1, keepdim=True).values,
        _noise(2, 3, 4, 5),
        ("xnnpack",),
        "xnnpack",
    ),
    "single element plus a scaled tensor": (
        lambda x: torch.add(_SLOPE, x, alpha=3.0),
        _noise(3, 5),
        (),
        "none",
    ),
    "unsqueeze of an image in channels-last": (
        lambda x: x.unsqueeze(1),
        _noise(2, 3, 4, 5).to(**_LAST),
        ("ggml", "xnnpack"),
        "portable",
    ),
}


class _Model(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize("strategy", ["cost", "greedy"])  # the latter prefers delegates
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_results_are_eagers(
    case: tuple[Any, torch.Tensor, tuple[str, ...], str], strategy: Literal["cost", "greedy"]
) -> None:
    function, x, backends, unfit = case
    program = orchestrator.lower(
        _Model(function), (x,), backends=backends, strategy=strategy, tune="off"
    )
    torch.testing.assert_close(program(x), function(x))
    if strategy == "cost":  # greedy plans give even a comparison beside the op to a delegate
        assert unfit not in program.plan["forward"].assignment.values()


def test_a_copy_and_what_it_copies_can_both_leave_xnnpack() -> None:
    def function(x: torch.Tensor) -> list[torch.Tensor]:
        y = torch.nn.functional.gelu(x)
        return [y.clone(), *y.split(3, -1)]

    x = _noise(2, 5)
    program = orchestrator.lower(
        _Model(function), (x,), backends=["xnnpack"], strategy="greedy", tune="off"
    )
    torch.testing.assert_close(program(x), function(x))
    assert "xnnpack" in program.plan["forward"].assignment.values()


@pytest.mark.parametrize("between", [torch.relu, lambda x: x + _ROW, lambda x: x.mT.sin().mT])
def test_softmax_along_the_rows_of_what_xnnpack_convolves(
    between: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """XNNPACK holds the image in channels-last, though its dim order says contiguous."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return between(torch.nn.functional.conv2d(x, _KERNEL)).softmax(3)

    x = _noise(2, 2, 6, 6)
    program = orchestrator.lower(
        _Model(function), (x,), backends=["xnnpack"], strategy="greedy", tune="off"
    )
    assignment = program.plan["forward"].assignment
    assert "xnnpack" in assignment.values()
    torch.testing.assert_close(program(x), function(x))


def test_softmax_of_attention_stays_on_xnnpack() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x @ x.mT).softmax(-1)

    x = _noise(2, 3, 4, 5)
    program = orchestrator.lower(
        _Model(function), (x,), backends=["xnnpack"], strategy="greedy", tune="off"
    )
    torch.testing.assert_close(program(x), function(x))
    report = program.report.methods[0]
    assert not any("softmax" in each.op for each in report.rejections)


def test_unsqueeze_of_several_dynamic_sizes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x.unsqueeze(-1))

    sizes = {0: torch.export.Dim("n", min=1, max=8), 1: torch.export.Dim("m", min=1, max=8)}
    program = orchestrator.lower(
        _Model(function),
        (_noise(3, 4, 5),),
        dynamic_shapes=(sizes,),
        backends=["xnnpack"],
        strategy="greedy",
        tune="off",
    )
    for x in (_noise(3, 4, 5), _noise(8, 1, 5)):
        torch.testing.assert_close(program(x), function(x))


@pytest.mark.parametrize("backends", [["xnnpack"], ["ggml", "xnnpack"], ["xnnpack", "ggml"]])
def test_broadcasting_that_makes_a_dim_order_of_its_own(backends: list[str]) -> None:
    """An image in channels-last times rows that are not: neither order, says PyTorch."""

    class Product(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x * y).abs() + 0.3

    x, y = _noise(8, 8, 7, 8).to(**_LAST), _noise(8, 8, 1, 8)
    assert (x * y).dim_order() == (0, 2, 3, 1) and (y * x).dim_order() == (0, 2, 1, 3)
    for inputs in ((x, y), (y, x)):
        program = orchestrator.lower(
            Product(), inputs, backends=backends, strategy="greedy", tune="off"
        )
        torch.testing.assert_close(program(*inputs), x.mul(y).abs() + 0.3)


@pytest.mark.parametrize("strategy", ["cost", "greedy"])
def test_what_reads_a_kernels_result_in_an_order_that_kernels_do_not_make(
    strategy: Literal["cost", "greedy"],
) -> None:
    """The fake division makes a third dim order, its kernel a contiguous tensor."""

    class Compared(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            quotient = torch.div(x, y, rounding_mode="floor")
            return torch.relu(quotient + 0.5) * x

    x, y = _noise(1, 2, 5, 2), _noise(1, 2, 5, 1).to(**_LAST)
    program = orchestrator.lower(
        Compared(), (x, y), backends=["ggml", "xnnpack"], strategy=strategy, tune="off"
    )
    torch.testing.assert_close(program(x, y), Compared()(x, y))
