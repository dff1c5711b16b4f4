"""Backends that lower here and run elsewhere, and those that compute in less than float32."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch import nn

from examples import zoo
from orchestrator import lower
from orchestrator.backends import Backend, BackendError, backend_names, find_backend, registry
from orchestrator.dry_run import plan
from orchestrator.native import (
    ExecuTorchError,
    NativeProgram,
    load_libraries,
    missing_backends,
)
from orchestrator.options import OptionError, PlanOptions
from tests.harness.fakes import OpsBackend

PHONE = Path(__file__).resolve().parents[2] / "examples" / "phone.json"
INPUTS = (torch.randn(2, 3, 8, 8),)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


def vulkan_program() -> bytes:
    return lower(model(), INPUTS, backends=["vulkan"], strategy="greedy").buffer


def test_backends_of_other_devices_have_names() -> None:
    assert {"vulkan", "coreml", "qnn"} <= set(backend_names())
    assert find_backend("vulkan").backend_id == "VulkanBackend"
    reason = find_backend("qnn").available()
    assert reason is None or "Qualcomm's AI Engine Direct SDK" in reason


def test_what_runs_elsewhere_is_planned_here() -> None:
    report = plan(
        model(), INPUTS, backends=["vulkan", "ggml", "xnnpack"], target="phone", cost_table=PHONE
    ).report
    method = report.methods[0]
    assert method.plan is not None
    assert method.plan.lower_bound_ns is not None
    names = {each.name for each in method.plan.alternatives}
    assert {"vulkan alone", "ggml alone", "xnnpack alone"} <= names


def test_a_plan_by_rates_uses_three_backends_where_each_is_best() -> None:
    network, inputs = zoo.mobilenet_v2()
    report = plan(
        network,
        inputs,
        backends=["vulkan", "ggml", "xnnpack"],
        target="phone",
        cost_table=PHONE.with_name("small_phone.json"),
    ).report
    method = report.methods[0]
    assert {part.backend for part in method.partitions} == {"vulkan", "ggml", "xnnpack"}
    assert method.plan is not None
    assert method.plan.lower_bound_ns is not None
    assert method.plan.predicted_ns is not None
    assert method.plan.lower_bound_ns <= method.plan.predicted_ns


def test_a_program_for_another_device_says_what_brings_its_delegate() -> None:
    program = NativeProgram(vulkan_program())
    assert program.backends() == ("VulkanBackend",)
    with pytest.raises(
        ExecuTorchError, match=r"VulkanBackend comes with .*EXECUTORCH_BUILD_VULKAN"
    ):
        program.run("forward", INPUTS)


def test_what_cannot_run_here_is_not_measured_here() -> None:
    with pytest.raises(BackendError, match=r"'vulkan' cannot be timed here.*calibrate export"):
        lower(model(), INPUTS, backends=["vulkan", "ggml"], tune="measure")


def test_less_than_float32_has_to_be_allowed() -> None:
    backend = OpsBackend("half", ["add"])
    backend.tolerance = 0.01
    inputs = (torch.ones(3), torch.ones(3))

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(BackendError, match=r"'half' computes in less than float32.*tolerance=0.01"):
        lower(Sum(), inputs, backends=[backend], tune="off")
    program = lower(Sum(), inputs, backends=[backend], strategy="greedy", tolerance=0.01)
    assert NativeProgram(program.buffer).backends() == ("XnnpackBackend",)
    with pytest.raises(OptionError, match="tolerance is -1"):
        PlanOptions(tolerance=-1)


def test_measured_times_are_of_one_set_of_options() -> None:
    class WithOption(OpsBackend):
        def __init__(self, value: bytes) -> None:
            super().__init__("toy", ["add"])
            self.value = value

        def compile_specs(self) -> list[CompileSpec]:
            return [CompileSpec("precision", self.value)]

    plain = OpsBackend("toy", ["add"])
    one, other = WithOption(b"f32"), WithOption(b"bf16")
    assert plain.fingerprint() == plain.versions()
    assert one.fingerprint().startswith(one.versions())
    assert one.fingerprint() == WithOption(b"f32").fingerprint()
    assert len({plain.fingerprint(), one.fingerprint(), other.fingerprint()}) == 3


def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "libbroken.so"
    broken.write_text("no library")
    for path in (broken, tmp_path / "libnone.so"):
        with pytest.raises(OSError, match=f"brings a delegate cannot be loaded: .*{path.name}"):
            load_libraries([path])


def test_delegates_of_this_process() -> None:
    assert missing_backends(["XnnpackBackend", "VulkanBackend", "NoBackend"]) == (
        "NoBackend",
        "VulkanBackend",
    )
    assert find_backend("xnnpack").runnable() is None
    assert find_backend("ggml").runnable() is None
    assert "'VulkanBackend' is not in this process" in str(find_backend("vulkan").runnable())


def test_a_program_asks_for_the_libraries_of_its_delegates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Brought(OpsBackend):
        backend_id = "VulkanBackend"

        def libraries(self) -> Sequence[Path]:
            asked.append(self.name)
            return [tmp_path / "libnone.so"]

    def find(name: str) -> Backend:
        if name == "ggml":
            raise RuntimeError("does not matter")
        return Brought(name, [])

    program = vulkan_program()
    monkeypatch.setattr(registry, "find_backend", find)
    with pytest.raises(OSError, match=r"libnone\.so"):
        NativeProgram(program)
    assert asked == ["xnnpack"]


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_plans_for_a_phone() -> None:
    done = run(
        *("plan", "examples.zoo:mobilenet_v2", "--backends", "vulkan,ggml,xnnpack"),
        *("--target", "phone", "--cost-table", PHONE),
    )
    assert done.returncode == 0, done.stderr
    assert "lower bound" in done.stdout or "no plan costs less" in done.stdout
    assert "rates of 'phone'" in done.stdout
