"""Programs take every size that they were exported for."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, export
from torch.nn import functional

from orchestrator import LoweringWarning, ModelError, lower
from orchestrator.frontend.dynamic_sizes import dynamic_sizes_kept


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
    with dynamic_sizes_kept([program]), image.fake_mode:
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
def test_batch_and_length_of_a_signal_are_dynamic(name: str, backends: tuple[str, ...]) -> None:
    """XNNPACK reshapes signals to images of one dynamic size at most; AUTO may specialize some."""
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
    """The first rows; there are no more than the dynamic batch has."""

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
    with dynamic_sizes_kept([program]), rows.fake_mode:
        size = env.create_unbacked_symint()
        torch._check(size >= 3)
        torch._check(size <= rows.shape[0])
        found = env.var_to_range[size.node.expr]
    assert (found.lower, found.upper) == (3, 40)
    assert env.var_to_range[rows.shape[0].node.expr] == before


class _Selected(nn.Module):
    """The places of what is above 0, of which there are as many as the data has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = (x > 0).nonzero()
        torch._check(places.shape[0] <= 24)
        return torch.exp(places.to(torch.float32) * 0.1)


def test_an_exported_program_with_sizes_of_data_can_be_lowered_again() -> None:
    inputs = (torch.randn(4, 6),)
    exported = export(_Selected(), inputs)
    first, second = (lower(exported) for _ in range(2))
    for seed in range(3):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(first(x), _Selected()(x))
        assert torch.equal(first(x), second(x))
    assert first.plan == second.plan


def test_uses_of_two_threads_leave_the_sizes_as_they_were() -> None:
    """The one that came first ends first."""
    program = export(_Beginning(), (torch.randn(9, 5), torch.tensor(3)), dynamic_shapes=_OPEN)
    rows = next(node.meta["val"] for node in program.graph.nodes if node.name == "x")
    env = rows.fake_mode.shape_env
    before = dict(vars(env))
    second_is_in, first_is_out = threading.Event(), threading.Event()
    found = []

    def second() -> None:
        with dynamic_sizes_kept([program]), rows.fake_mode:
            second_is_in.set()
            assert first_is_out.wait(10)
            size = env.create_unbacked_symint()
            torch._check(size >= 3)
            torch._check(size <= rows.shape[0])
            found.append(env.var_to_range[size.node.expr])

    thread = threading.Thread(target=second)
    with dynamic_sizes_kept([program]):
        thread.start()
        assert second_is_in.wait(10)
        assert vars(env).keys() > before.keys()
    first_is_out.set()
    thread.join()
    assert (found[0].lower, found[0].upper) == (3, 40)
    assert vars(env).keys() == before.keys()


_THREADS = """
import threading
import torch
from torch import nn
import torch._export.utils as utils
from torch.fx import GraphModule
from orchestrator import lower

before = utils._materialize_cpp_cia_ops, torch._ops.Callable, GraphModule.recompile
models = [nn.Sequential(nn.Linear(8, n), nn.ReLU(), nn.Linear(n, 4)).eval() for n in (3, 5, 7)]
x, off = torch.randn(2, 8), []

def run(model):
    program = lower(model, (x,))
    off.append((program(x) - model(x)).abs().max().item())

threads = [threading.Thread(target=run, args=(model,)) for model in models]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(off) == 3 and max(off) < 1e-5, off
after = utils._materialize_cpp_cia_ops, torch._ops.Callable, GraphModule.recompile
assert after == before, after
assert not torch.compiler.is_exporting()
"""


def test_threads_may_lower_at_once() -> None:
    """In a process of its own: here, tests keep torch's patches in place for all of them."""
    subprocess.run([sys.executable, "-c", _THREADS], check=True, timeout=600)


def test_a_size_without_a_bound_is_told_once() -> None:
    shapes = ({0: Dim.AUTO},)
    with pytest.warns(LoweringWarning, match="without an upper bound") as caught:
        lower(nn.Linear(4, 5).eval(), (torch.randn(3, 4),), dynamic_shapes=shapes)
    (told,) = (each for each in caught if each.category is LoweringWarning)
    for part in ("dim 0 of 'input'", "'forward'", "at most 3", "max="):
        assert part in str(told.message)


@pytest.mark.parametrize("shapes", [None, ({0: Dim("n", max=9)},), ({0: Dim.AUTO(max=9)},)])
def test_a_size_with_a_bound_is_not_told(shapes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoweringWarning)
        lower(nn.Linear(4, 5).eval(), (torch.randn(3, 4),), dynamic_shapes=shapes)


def test_a_violated_constraint_comes_with_what_to_change() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3)).eval()
    shapes = ({2: Dim("height", min=1, max=19)},)
    with pytest.raises(ModelError) as caught:
        lower(model, (torch.randn(1, 3, 8, 9),), dynamic_shapes=shapes)
    text = str(caught.value)
    assert "Constraints violated (height)" in text
    assert "Suggested fixes:\n  height = Dim('height', min=5, max=19)" in text
    assert "draft_export" not in text


class _Model(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.layers)


_ASKED = {
    "grouped signal": (
        _Model(
            lambda x, a, b: b(a(x)).transpose(1, 2),
            nn.Conv1d(4, 8, 5, 2, 2),
            nn.Conv1d(8, 8, 3, 2, 1, groups=2),
        ),
        ({2: Dim("n", min=16, max=200)},),
        [(1, 4, 50), (1, 4, 16), (1, 4, 17), (1, 4, 200)],
    ),
    "down to one pixel": (
        _Model(
            lambda x, a: functional.avg_pool2d(functional.max_pool2d(a(x), 3, 2, 1), 2),
            nn.Conv2d(3, 8, 3, 2, 1),
        ),
        ({2: Dim("h", min=8, max=64), 3: Dim("w", min=8, max=64)},),
        [(2, 3, 24, 20), (2, 3, 8, 8), (2, 3, 13, 64), (2, 3, 64, 9)],
    ),
    "the first half": (
        _Model(lambda x, a: a(x)[:, : x.shape[1] // 2].mean(1), nn.Linear(8, 8)),
        ({1: Dim("n", min=2, max=32)},),
        [(2, 6, 8), (2, 2, 8), (2, 31, 8), (2, 4, 8)],
    ),
}


@pytest.mark.parametrize("name", _ASKED)
def test_what_export_asks_of_the_example_is_no_condition(name: str) -> None:
    """torch.export refuses these: that a tensor is dense, or of several pixels, is a guard."""
    model, shapes, sizes = _ASKED[name]
    program = lower(model.eval(), (torch.randn(sizes[0]),), dynamic_shapes=shapes)
    for each in sizes:
        x = torch.randn(each)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_what_the_model_needs_of_sizes_is_a_condition() -> None:
    model = _Model(lambda x: x.view(2, -1, 2, 8).mean(1)).eval()
    with pytest.raises(ModelError, match="Constraints violated"):
        lower(model, (torch.randn(2, 6, 8),), dynamic_shapes=({1: Dim("n", max=32)},))


class _Shortened(nn.Module):
    """A size that is computed in floating point."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.layer = factor, nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.sym_int(x.shape[1] * self.factor)
        return self.layer(torch.full((rows, 8), 0.5) * x.sum(1)).exp() + 1.0


@pytest.mark.parametrize(("factor", "left"), [(0.75, 0), (0.7, 1)])
def test_a_size_of_floating_point_is_one_of_integers_or_left_to_kernels(
    factor: float, left: int
) -> None:
    """0.7 times 90 is less than 63, so that seven tenths are not what it is."""
    model = _Shortened(factor).eval()
    shapes = ({1: Dim("n", min=4, max=100)},)
    program = lower(model, (torch.randn(1, 20, 8),), backends=["ggml"], dynamic_shapes=shapes)
    for rows in (20, 4, 90, 99, 100):
        x = torch.randn(1, rows, 8)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
    (method,) = program.report.methods
    assert method.kernels.get("aten.full.default", 0) == left
    assert sum(name.startswith("aten.") for name in method.kernels) == left + 1  # the size
