"""Positions of nonzero elements come out as eager has them, though ExecuTorch's kernel's do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import orchestrator
from orchestrator.frontend.passes import flatten_nonzero

aten = torch.ops.aten

CASES: dict[str, Callable[[Tensor], Any]] = {
    "nonzero": lambda x: x.nonzero(),
    "argwhere": lambda x: torch.argwhere(x > 0) + 1,
    "one tensor per dim": lambda x: x.nonzero(as_tuple=True),
    "where of a condition": lambda x: list(torch.where(x > 0)),
    "what is found, looked up": lambda x: x[x.nonzero(as_tuple=True)] * 2,
    "a vector's": lambda x: x.flatten().nonzero(),
    "a number's": lambda x: x.sum().nonzero(),
    "a transposed tensor's": lambda x: x.transpose(0, 1).nonzero().float().sum(0),
    "two": lambda x: ((x > 1).nonzero(), x.nonzero()),
}


class Function(nn.Module):
    """A module that applies a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def sparse(*sizes: int, seed: int) -> Tensor:
    """Random numbers, a third of which are 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sizes, generator=generator)
    return x * (torch.rand(sizes, generator=generator) > 1 / 3)


@pytest.mark.parametrize("function", CASES.values(), ids=CASES.keys())
def test_the_rewritten_program_computes_the_same(function: Callable[[Tensor], Any]) -> None:
    x = sparse(3, 4, 2, seed=0)
    program = torch.export.export(Function(function), (x,), strict=False)
    source = str(program.graph)

    result = flatten_nonzero(program)

    assert str(program.graph) == source
    for other in (x, sparse(3, 4, 2, seed=1), torch.zeros_like(x)):
        assert_equal(result.module()(other), function(other))
    ranks = [
        node.args[0].meta["val"].dim()
        for node in result.graph.nodes
        if node.target is aten.nonzero.default
    ]
    assert ranks and all(rank <= 1 for rank in ranks)


@pytest.mark.parametrize("backends", [[], ["ggml", "xnnpack"]], ids=["kernels", "delegates"])
def test_lowered_programs_find_what_eager_finds(backends: list[str]) -> None:
    model = Function(lambda x: [function(x) for function in CASES.values()])
    x = sparse(2, 3, 4, seed=0)
    program = orchestrator.lower(model, (x,), backends=backends, strategy="greedy", tune="off")
    for other in (x, sparse(2, 3, 4, seed=1), torch.zeros_like(x)):
        for name, found, wanted in zip(CASES, program(other), model(other), strict=True):
            assert_equal(found, wanted, name)


def test_sizes_may_be_dynamic() -> None:
    model = Function(lambda x: x.nonzero())
    x = sparse(3, 4, seed=0)
    sizes = {0: Dim("rows", min=2, max=9), 1: Dim("columns", min=2, max=9)}
    program = orchestrator.lower(model, (x,), dynamic_shapes=(sizes,), tune="off")
    for other in (x, sparse(9, 2, seed=1), sparse(5, 7, seed=2)):
        assert_equal(program(other), model(other))


def assert_equal(found: Any, wanted: Any, name: str = "") -> None:
    """Sizes, dtypes and values are the same."""
    leaves = torch.utils._pytree.tree_leaves
    torch.testing.assert_close(leaves(found), leaves(wanted), msg=partial("{}: {}".format, name))
