"""Methods that run where the delegates of others are missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import _ggml_delegate
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.native import NativeProgram
from orchestrator.options import OptionError
from tests.harness.fakes import OpsBackend

X = (torch.randn(2, 3, 8, 8),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


class Counter(nn.Module):
    """State, a convolution's sum of what it has seen."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(self.linear(x))
        return self.seen * 2.0


def test_a_program_runs_where_its_delegate_is_missing() -> None:
    program = lower(network(), X, backends=["vulkan"], strategy="greedy", fallback=True)
    assert [each.name for each in program.report.methods] == ["forward", "forward__fallback"]
    native = NativeProgram(program.buffer)
    assert native.backends("forward") == ("VulkanBackend",)
    assert native.fallbacks == {"forward": "forward__fallback"}
    assert native.method("forward").backends == ("XnnpackBackend",)
    torch.testing.assert_close(program(*X), network()(*X))
    torch.testing.assert_close(native.run("forward", X)[0], network()(*X))


def test_the_runner_takes_it_and_says_so(tmp_path: Path) -> None:
    program = lower(network(), X, backends=["vulkan"], strategy="greedy", fallback=True)
    program.save(tmp_path / "network.pte")
    np.save(tmp_path / "x.npy", X[0].numpy())
    runner = Path(_ggml_delegate.__file__).parent / "bin" / "orchestrator-run"
    done = subprocess.run(
        [runner, tmp_path / "network.pte", "--input", tmp_path / "x.npy"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "delegates of method 'forward' cannot be used here" in done.stderr
    assert "'forward__fallback' runs in its place" in done.stderr


def test_it_is_not_taken_where_all_delegates_are_there() -> None:
    program = lower(network(), X, backends=["ggml"], strategy="greedy", fallback=True)
    native = NativeProgram(program.buffer)
    assert native.fallbacks == {}
    assert native.method("forward").backends == ("GgmlBackend",)
    torch.testing.assert_close(native.run("forward__fallback", X)[0], network()(*X))


def test_a_method_that_runs_anywhere_has_none() -> None:
    program = lower(network(), X, backends=["xnnpack"], fallback=True)
    assert list(program.signatures) == ["forward"]
    assert NativeProgram(program.buffer).method_names == ("forward",)


def test_weights_that_both_have_in_xnnpack_are_stored_once() -> None:
    wide, x = nn.Conv2d(64, 128, 3).eval(), (torch.randn(1, 64, 6, 6),)
    convolves = OpsBackend("convolves", {"convolution"})  # on XNNPACK's delegate as well
    sizes = {
        fallback: len(
            lower(wide, x, backends=[convolves], strategy="greedy", fallback=fallback).buffer
        )
        for fallback in (False, True)
    }
    assert sizes[True] < sizes[False] + 100_000


def test_state_is_that_of_the_method() -> None:
    model, x = Counter(), torch.randn(2, 3)
    exported = torch.export.export(model, (x,))
    program = lower(exported, backends=["vulkan"], strategy="greedy", fallback=True)
    native, expected = NativeProgram(program.buffer), torch.zeros(2, 3)
    for _ in range(3):
        expected = expected + model.linear(x)
        torch.testing.assert_close(native.run("forward", (x,))[0], expected * 2.0)
    kept = native.state()
    assert "forward" not in kept.methods
    native.reset()
    torch.testing.assert_close(native.run("forward", (x,))[0], model.linear(x) * 2.0)
    native.restore(kept)
    expected = expected + model.linear(x)
    torch.testing.assert_close(native.run("forward", (x,))[0], expected * 2.0)


def test_a_state_that_names_what_does_not_run_is_refused() -> None:
    model, x = Counter(), torch.randn(2, 3)
    program = lower(model, (x,), backends=["vulkan"], strategy="greedy", fallback=True)
    native = NativeProgram(program.buffer)
    kept = native.state()
    wrong = type(kept)(kept.shared, {**kept.methods, "forward": b"1"})
    with pytest.raises(ValueError, match="another method runs in its place"):
        native.restore(wrong)


def test_options_for_other_backends_do_not_reach_it() -> None:
    program = lower(
        network(),
        X,
        backends=["ggml", "xnnpack"],
        pins={"*": "ggml"},
        max_partitions=1,
        fallback=True,
        tune="off",
    )
    found = {
        each.name: {part.backend for part in each.partitions} for each in program.report.methods
    }
    assert found == {"forward": {"ggml"}, "forward__fallback": {"xnnpack"}}


def test_a_lone_method_needs_no_name_beside_its_fallback() -> None:
    exported = torch.export.export(network(), X)
    program = lower({"classify": exported}, backends=["vulkan"], strategy="greedy", fallback=True)
    assert list(program.signatures) == ["classify", "classify__fallback"]
    torch.testing.assert_close(program(*X), network()(*X))


def test_a_name_that_is_taken_is_an_error() -> None:
    exported = torch.export.export(network(), X)
    with pytest.raises(OptionError, match="'forward__fallback', and there is one already"):
        lower({"forward": exported, "forward__fallback": exported}, fallback=True)


def test_without_one_the_error_names_backend_package_and_remedy() -> None:
    program = lower(network(), X, backends=["vulkan"], strategy="greedy")
    with pytest.raises(RuntimeError) as caught:
        NativeProgram(program.buffer).run("forward", X)
    text = str(caught.value)
    assert "VulkanBackend" in text
    assert "EXECUTORCH_BUILD_VULKAN" in text
    assert "fallback=True" in text
