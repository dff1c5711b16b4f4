"""Programs take every size that they were exported for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from orchestrator import lower
from orchestrator.open_sizes import open_sizes_kept


@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("ggml",), ("xnnpack",), ()])
def test_a_batch_may_be_as_large_as_exported(backends: tuple[str, ...]) -> None:
    """PyTorch's fake convolution asks whether the batch is below 16; the example's is."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    shapes = ({0: Dim("n", min=1, max=64)},)
    program = lower(
        model,
        (torch.randn(2, 3, 8, 9),),
        backends=backends,
        strategy="greedy",
        dynamic_shapes=shapes,
    )
    for batch in (1, 2, 15, 16, 64):
        x = torch.randn(batch, 3, 8, 9)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_ranges_stay_as_they_were() -> None:
    model = nn.Conv2d(3, 8, 3).eval()
    shapes = ({0: Dim("n", min=1, max=64)},)
    program = export(model, (torch.randn(2, 3, 8, 9),), dynamic_shapes=shapes)
    image = next(node.meta["val"] for node in program.graph.nodes if node.name == "input")
    env = image.fake_mode.shape_env
    before = dict(env.var_to_range)
    with open_sizes_kept([program]), image.fake_mode:
        assert image.shape[0] < 16
    assert env.var_to_range == before
    assert image.shape[0] < 16  # asked outside, it is a condition
    assert env.var_to_range != before


_SIGNALS = {
    "convolution": nn.Conv1d(3, 6, 3),
    "depthwise": nn.Conv1d(3, 3, 5, padding=2, groups=3),
    "strided": nn.Conv1d(3, 6, 4, stride=2, dilation=2),
    "transposed": nn.ConvTranspose1d(3, 4, 3, stride=2),
}


@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("xnnpack",), ()])
@pytest.mark.parametrize("name", _SIGNALS)
def test_batch_and_length_of_a_signal_are_open(name: str, backends: tuple[str, ...]) -> None:
    """XNNPACK reshapes signals to images, with one open size at most; AUTO leaves a settled one."""
    model = _SIGNALS[name].eval()
    sizes = {dim: Dim.AUTO(min=1, max=40) for dim in range(3)}
    program = lower(
        model,
        (torch.randn(4, 3, 20),),
        backends=backends,
        strategy="greedy",
        dynamic_shapes=(sizes,),
    )
    for batch, length in ((4, 20), (2, 33), (9, 17)):
        x = torch.randn(batch, 3, length)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
    if "ggml" in backends:
        assert [each.backend for each in program.report.methods[0].partitions] == ["ggml"]


class _Counted(nn.Module):
    """As many rows as its input says."""

    def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        n = count.item()
        torch._check(n >= 1)
        torch._check(n <= 24)
        places = torch.arange(n, dtype=torch.float32)
        return torch.sin(places[:, None] * 0.1 + x) * x


class _Beginning(nn.Module):
    """The first rows; there are no more than the open batch has."""

    def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        n = count.item()
        torch._check(n >= 1)
        torch._check(n <= x.shape[0])
        return torch.exp(x.narrow(0, 0, n)) + 1.0


class _Columns(nn.Module):
    """Some columns; that the first of them is one follows from what is asserted of the last."""

    def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        end = count.item()
        start = (count // 2).item()
        torch._check(start >= 0)
        torch._check(start < end)
        torch._check(end <= 24)
        return torch.relu(torch.cat([x, x, x, x, x], 1)[:, start:end]).mean(0)


_OPEN = ({0: Dim("batch", min=1, max=40)}, None)
# A model, its dynamic shapes, and the number of rows in the example and when run.
_COUNTS: dict[str, tuple[nn.Module, Any, int, int]] = {
    "counted": (_Counted(), None, 1, 1),
    "beginning": (_Beginning(), _OPEN, 9, 30),
    "columns": (_Columns(), None, 9, 9),
}


@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("ggml",), ("xnnpack",), ()])
@pytest.mark.parametrize("name", _COUNTS)
def test_sizes_that_depend_on_data_keep_their_bounds(name: str, backends: tuple[str, ...]) -> None:
    """Each pass makes such sizes anew, and what the model asserts of them bounds the new ones."""
    model, shapes, rows, rows_to_run = _COUNTS[name]
    program = lower(
        model,
        (torch.randn(rows, 5), torch.tensor(3)),
        backends=backends,
        strategy="greedy",
        dynamic_shapes=shapes,
    )
    for count in (1, 7, 24):
        x = torch.randn(rows_to_run, 5)
        torch.testing.assert_close(program(x, torch.tensor(count)), model(x, torch.tensor(count)))


def test_assertions_leave_the_ranges_of_inputs() -> None:
    program = export(
        _Beginning(),
        (torch.randn(9, 5), torch.tensor(3)),
        dynamic_shapes=_OPEN,
    )
    rows = next(node.meta["val"] for node in program.graph.nodes if node.name == "x")
    env = rows.fake_mode.shape_env
    before = env.var_to_range[rows.shape[0].node.expr]
    with open_sizes_kept([program]), rows.fake_mode:
        size = env.create_unbacked_symint()
        torch._check(size >= 3)
        torch._check(size <= rows.shape[0])
        found = env.var_to_range[size.node.expr]
    assert (found.lower, found.upper) == (3, 40)
    assert env.var_to_range[rows.shape[0].node.expr] == before
