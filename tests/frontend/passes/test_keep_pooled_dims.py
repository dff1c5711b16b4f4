"""Global average pooling takes the form that XNNPACK knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from orchestrator.frontend.passes import keep_pooled_dims
from orchestrator.frontend.torch_speed import repeated_work_spared

aten = torch.ops.aten


class Function(nn.Module):
    """A module that applies a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def means(program: ExportedProgram) -> list[tuple[object, ...]]:
    """Dims and keepdim of each mean."""
    nodes = (node for node in program.graph.nodes if node.target is aten.mean.dim)
    return [tuple(node.args[1:]) for node in nodes]


@pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
@pytest.mark.parametrize("dims", [(2, 3), (3, 2), (-2, -1), (-1, 2)])
def test_mean_over_height_and_width_keeps_them(dims: tuple[int, int], decomposed: bool) -> None:
    x = torch.randn(2, 3, 5, 7)
    model = Function(lambda x: x.mean(dims).relu())
    with repeated_work_spared():
        program = torch.export.export(model, (x,))
        program = program.run_decompositions() if decomposed else program
        source = str(program.graph)
        result = keep_pooled_dims(program)
        again = result.run_decompositions()

    assert means(result) == [([2, 3], True)]
    assert str(program.graph) == source
    torch.testing.assert_close(result.module()(x), model(x))
    torch.testing.assert_close(again.module()(x), model(x))


def test_mean_that_is_an_output() -> None:
    x = torch.randn(2, 3, 5, 7)
    result = keep_pooled_dims(torch.export.export(Function(lambda x: x.mean((2, 3))), (x,)))
    torch.testing.assert_close(result.module()(x), x.mean((2, 3)))


def test_dynamic_batch_height_and_width() -> None:
    x = torch.randn(2, 3, 5, 7)
    dims = {0: Dim("batch", max=8), 2: Dim("height", max=64), 3: Dim("width", max=64)}
    model = Function(lambda x: x.mean((2, 3)))
    result = keep_pooled_dims(torch.export.export(model, (x,), dynamic_shapes=(dims,)))
    assert means(result) == [([2, 3], True)]
    other = torch.randn(5, 3, 9, 4)
    torch.testing.assert_close(result.module()(other), other.mean((2, 3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.mean((1, 2)),
        lambda x: x.mean(3),
        lambda x: x.mean((0, 2, 3)),
        lambda x: x.mean((2, 3), dtype=torch.float64),
        lambda x: x[0].mean((1, 2)),
    ],
)
def test_other_means_are_left_alone(function: Callable[[Tensor], Tensor]) -> None:
    program = torch.export.export(Function(function), (torch.randn(2, 3, 5, 7),))
    assert keep_pooled_dims(program) is program
