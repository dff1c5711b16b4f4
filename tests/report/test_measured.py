"""Measured times beside predicted ones, from ETDumps of real runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, lower
from orchestrator.native import NativeProgram
from orchestrator.report.data import MethodReport, Report, ReportError
from orchestrator.report.etdump import read_runs
from orchestrator.report.measured import with_profile
from orchestrator.report.text import render_text


class Mixed(nn.Module):
    """ggml, XNNPACK (a mean over two dims) and kernels, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x)).mean((2, 3))
        z = torch.cumsum(torch.cumsum(self.linear(y), 0), 1)
        return z.exp(), torch.topk(z, 2)[0]


X = torch.randn(2, 3, 8, 8)


@pytest.fixture(scope="module")
def program() -> LoweredProgram:
    return lower(Mixed().eval(), (X,), strategy="greedy")


def profile(program: LoweredProgram, runs: int = 3) -> bytes:
    native = NativeProgram(program.buffer, etdump=True)
    for _ in range(runs):
        native(X)
    return native.etdump()


@pytest.fixture(scope="module")
def measured(program: LoweredProgram) -> MethodReport:
    (method,) = with_profile(program.report, profile(program)).methods
    return method


def test_every_segment_and_the_whole_have_times(measured: MethodReport) -> None:
    times = [segment.measured_ns for segment in measured.segments]
    assert all(time is not None and time > 0 for time in times)
    assert measured.plan is not None
    assert measured.plan.measured_ns is not None
    assert sum(time or 0 for time in times) <= measured.plan.measured_ns * 1.5
    assert measured.profile == "median of 3 profiled runs"


def test_ops_of_ggml_and_kernels_have_times(measured: MethodReport) -> None:
    timed = {atom.ops[0]: atom.measured_ns for atom in measured.atoms if atom.measured_ns}
    for op in ("aten.convolution.default", "aten.linear.default", "aten.exp.default"):
        assert timed[op] > 0
    sums = [atom for atom in measured.atoms if atom.ops == ("aten.cumsum.default",)]
    assert len(sums) == 2
    assert all(atom.measured_ns for atom in sums)


def test_the_program_order_of_calls_is_known(program: LoweredProgram) -> None:
    (method,) = program.report.methods
    assert sorted(method.calls) == [
        index for index, segment in enumerate(method.segments) if segment.is_delegate
    ]
    kernels = [node for seg in method.segments if not seg.is_delegate for node in seg.nodes]
    assert sorted(method.kernel_order) == sorted(kernels)


def test_the_text_shows_them(program: LoweredProgram) -> None:
    text = render_text(with_profile(program.report, profile(program, runs=1)))
    assert "measured" in text
    assert "1 profiled run" in text


def test_the_report_with_times_is_json_and_back(program: LoweredProgram) -> None:
    report = with_profile(program.report, profile(program))
    assert Report.from_json(report.to_json()) == report


class TestErrors:
    def test_a_profile_of_another_program(self, program: LoweredProgram) -> None:
        other = lower(
            nn.Linear(8, 8).eval(), (torch.randn(1, 8),), backends=["ggml"], strategy="greedy"
        )
        native = NativeProgram(other.buffer, etdump=True)
        native(torch.randn(1, 8))
        with pytest.raises(ReportError, match=r"another program: it has 1 delegate calls"):
            with_profile(program.report, native.etdump())

    def test_calls_that_hold_other_ops(self, program: LoweredProgram) -> None:
        (method,) = program.report.methods
        turned = replace(method, calls=tuple(reversed(method.calls)))
        with pytest.raises(ReportError, match="another program: it has 'aten_"):
            with_profile(replace(program.report, methods=(turned,)), profile(program))

    def test_no_runs(self, program: LoweredProgram) -> None:
        native = NativeProgram(program.buffer, etdump=True)
        native.method("forward")
        with pytest.raises(ReportError, match="no run of a method"):
            with_profile(program.report, native.etdump())

    def test_no_such_method(self, program: LoweredProgram) -> None:
        with pytest.raises(ReportError, match="no method 'backward'"):
            with_profile(program.report, b"", "backward")

    def test_other_bytes(self) -> None:
        for data in (b"", b"PK\x03\x04", b"x" * 100):
            with pytest.raises(ReportError, match="not a profile"):
                read_runs(data)

    def test_damaged_bytes_raise_nothing_else(self, program: LoweredProgram) -> None:
        whole = profile(program)
        for size in range(8, len(whole), 101):
            _read(whole[:size])
        for place in range(8, len(whole) - 4, 13):
            _read(whole[:place] + b"\xff\xff\xff\x7f" + whole[place + 4 :])


def _read(data: bytes) -> None:
    try:
        read_runs(data)
    except ReportError as error:
        assert "profile" in str(error)
