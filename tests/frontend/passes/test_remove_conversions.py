"""Weights that a model converts are stored once, as what is computed with."""

from __future__ import annotations

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.frontend.passes import remove_asserts
from orchestrator.partitioner import OrchestratorPartitioner

ASSERT = torch.ops.aten._assert_tensor_metadata.default
BYTES = 128 * 128 * 4
BACKENDS: list[list[str]] = [["ggml"], ["xnnpack"], ["ggml", "xnnpack"], []]


class Converted(nn.Module):
    """Weights, one a buffer, in the dtype of what they meet; a batch norm behind a conversion."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(128, 128).to(dtype))
        self.register_buffer("kept", torch.randn(128, 128).to(dtype))
        self.norm = nn.BatchNorm1d(128)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(x, self.weight.to(x.dtype))
        return self.norm(nn.functional.linear(y, self.kept.to(x.dtype)).to(x.dtype))


def model(dtype: torch.dtype) -> nn.Module:
    return Converted(dtype).eval()


class Tied(nn.Module):
    """A table of words that is the head as well, both times converted."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(128, 128))

    def forward(self, index: Tensor) -> Tensor:
        words = nn.functional.embedding(index, self.table.to(torch.float32))
        return nn.functional.linear(words, self.table.to(words.dtype)).float()


def test_a_tied_table_is_stored_once() -> None:
    index = torch.tensor([[3, 127]])
    program = lower(Tied().eval(), (index,), backends=["ggml"], tune="off")
    assert BYTES < len(program.buffer) < BYTES + 4000


class Returned(nn.Module):
    """Conversions whose results are outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = x + 1
        return x.to(torch.float32), y.to(y.dtype), y.to(torch.float32, copy=True)


@pytest.mark.parametrize("backends", BACKENDS, ids=str)
def test_results_that_are_converted(backends: list[str]) -> None:
    x = torch.randn(3, 4)
    program = lower(Returned().eval(), (x,), backends=backends, tune="off")
    for found, expected in zip(program(x), Returned()(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backends", BACKENDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_the_file_has_them_once(dtype: torch.dtype, backends: list[str]) -> None:
    x = torch.randn(3, 128)
    program = lower(model(dtype), (x,), backends=backends, tune="off")
    assert 2 * BYTES < len(program.buffer) < 2 * BYTES + 6000
    torch.testing.assert_close(program(x), model(dtype)(x), rtol=1e-4, atol=1e-4)


def test_executorchs_own_flow_stores_them_once_too() -> None:
    program = torch.export.export(model(torch.float32), (torch.randn(3, 128),))
    partitioner = OrchestratorPartitioner(["ggml"])
    edge = to_edge_transform_and_lower(program, partitioner=[partitioner])
    assert len(edge.to_executorch().buffer) < 2 * BYTES + 6000


def test_the_given_program_stays() -> None:
    program = torch.export.export(model(torch.float32), (torch.randn(3, 128),))

    def count(graph: torch.fx.Graph) -> int:
        return sum(node.target == ASSERT for node in graph.nodes)

    before = count(program.graph)
    assert before >= 3
    assert count(remove_asserts(program).graph) == 0
    assert count(program.graph) == before
    again = remove_asserts(program)
    assert remove_asserts(again) is again
