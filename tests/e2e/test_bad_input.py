"""Models and inputs that cannot be lowered, or hardly: a clear error or a correct run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

from orchestrator import ModelError, lower
from orchestrator.native import ExecuTorchError


class Model(nn.Module):
    """A linear layer and a function that is given it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.linear = function, nn.Linear(4, 4)

    def forward(self, *args: Any) -> Any:
        return self.function(self.linear, *args)


def _x(*sizes: int) -> Tensor:
    return torch.randn(sizes or (3, 4), generator=torch.Generator().manual_seed(0))


@dataclass
class Box:
    """A container that pytree knows, but not by a name to store it under."""

    inside: Tensor


torch.export.register_dataclass(Box)

REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "values decide in Python": (
        lambda linear, x: linear(x) if x.sum() > 0 else x,
        (_x(),),
        "torch.export cannot export",
    ),
    "wrong sizes": (lambda linear, x: linear(x), (_x(3, 5),), "torch.export cannot export"),
    "too many inputs": (lambda linear, x: linear(x), (_x(), _x()), "torch.export cannot export"),
    "no tensor": (lambda linear, x: linear(x), ("text",), "torch.export cannot export"),
    "no output": (lambda linear, x: None, (_x(),), "returns no tensor"),
    "a complex input": (
        lambda linear, x: (x * x).abs(),
        (_x().to(torch.complex64),),
        "complex64",
    ),
    "a complex number": (
        lambda linear, x: (linear(x) * (2 + 1j)).abs(),
        (_x(),),
        r"mul has the complex number \(2\+1j\)",
    ),
    "a complex output": (lambda linear, x: torch.fft.rfft(x), (_x(),), "complex64"),
    "writes to its input": (lambda linear, x: x.add_(1) * 2, (_x(),), "writes to its input"),
    "a size that depends on data, without a bound": (
        lambda linear, x: torch.bincount((linear(x) * 3).long().abs().flatten()) * 2,
        (_x(),),
        r"dimension 0 of bincount depends on data and has no upper bound",
    ),
    "a container that is no tuple": (
        lambda linear, x: Box(linear(x)),
        (_x(),),
        "container",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lowered_is_a_clear_error(name: str) -> None:
    function, inputs, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        lower(Model(function).eval(), inputs)


RUN: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "float64": (lambda linear, x: (x @ x.T).softmax(-1), (_x().double(),)),
    "float64 inside": (lambda linear, x: (linear(x).double().cumsum(0) * 2).float(), (_x(),)),
    "complex inside": (lambda linear, x: torch.fft.rfft(linear(x)).abs(), (_x(),)),
    "uint8": (
        lambda linear, x: linear(x.float() / 255),
        (torch.arange(12, dtype=torch.uint8).reshape(3, 4),),
    ),
    "no elements": (lambda linear, x: linear(x).relu(), (_x(0, 4),)),
    "no elements inside": (
        lambda linear, x: torch.cat([x, x[:0]]).relu() + x[:0].sum(0),
        (_x(),),
    ),
    "no elements come out": (lambda linear, x: (linear(x)[:0], linear(x)), (_x(),)),
    "rank 9": (lambda linear, x: x.reshape(1, 1, 1, 1, 1, 1, 3, 2, 2).relu().sum(0), (_x(),)),
    "sizes from values": (lambda linear, x: linear(x)[x[:, 0] > 0] * 2, (_x(),)),
    "an input comes out": (lambda linear, x: (x, linear(x)), (_x(),)),
    "a number and None": (lambda linear, x, n: (linear(x) * n, None), (_x(), 3)),
}


@pytest.mark.parametrize("name", RUN)
def test_unusual_tensors_run_like_eager(name: str) -> None:
    function, inputs = RUN[name]
    model = Model(function).eval()
    program = lower(model, inputs)
    with torch.no_grad():
        expected = tree_leaves(model(*inputs))
    for actual, wanted in zip(tree_leaves(program(*inputs)), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_an_unbounded_size_runs_up_to_the_example_and_is_an_error_beyond() -> None:
    model = Model(lambda linear, x: linear(x).relu()).eval()
    program = lower(model, (_x(9, 4),), dynamic_shapes={"args": ({0: Dim("n")},)})
    for rows in (2, 3, 9):
        with torch.no_grad():
            torch.testing.assert_close(program(_x(rows, 4)), model(_x(rows, 4)))
    with pytest.raises(ValueError, match=r"up to \[9, 4\]"):
        program(_x(50, 4))


def test_sizes_other_than_the_exported_ones_are_an_error() -> None:
    model = Model(lambda linear, x: linear(x).relu()).eval()
    program = lower(model, (_x(),))
    for wrong in (_x(4, 4), _x(3, 4, 1), _x().double()):
        with pytest.raises((ValueError, TypeError, ExecuTorchError)):
            program(wrong)
    with torch.no_grad():
        torch.testing.assert_close(program(_x()), model(_x()))
