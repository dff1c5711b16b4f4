"""Delegates of which nothing is known, timed: what crashes, hangs or is wrong costs that plan."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

import executorch
import pytest
import torch
from executorch.exir.backend.backend_details import (
    BackendDetails,
    CompileSpec,
    ExportedProgram,
    PreprocessResult,
)
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.backends import Backend, Candidate, Rejection, Support
from orchestrator.cost import trial
from orchestrator.cost.trial import try_out
from orchestrator.graph.queries import compute_nodes, op_name
from orchestrator.native import NativeProgram, load_libraries
from orchestrator.program import LoweredProgram

SOURCE = Path(__file__).with_name("crashing.cpp")
EXECUTORCH = Path(executorch.__path__[0])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The delegate, compiled."""
    path = tmp_path_factory.mktemp("delegate") / "libcrashing.so"
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    include = EXECUTORCH / "include"
    portable = include / "executorch/runtime/core/portable_type/c10"
    command += [f"-I{include}", f"-I{portable}", str(SOURCE), "-o", str(path)]
    command += [f"-L{EXECUTORCH / 'lib'}", "-lexecutorch"]
    subprocess.run(command, check=True)
    return path


@final
class CrashingBackend(BackendDetails):  # type: ignore[misc]  # executorch is untyped
    @staticmethod
    def preprocess(edge_program: ExportedProgram, specs: list[CompileSpec]) -> PreprocessResult:
        (spec,) = specs
        return PreprocessResult(processed_bytes=spec.value)


class Crashing(Backend):
    """Takes `abs`, of positive numbers, and does to it what `way` says."""

    name = "crashing"
    backend_id = "CrashingBackend"

    def __init__(self, library: Path, way: str) -> None:
        self.library, self.way = library, way

    def propose(self, ep: ExportedProgram) -> Support:
        nodes = list(compute_nodes(ep))
        taken = [node for node in nodes if op_name(node) == "aten.abs.default"]
        return Support(
            [Candidate((node,)) for node in taken],
            [Rejection(node, "it copies") for node in nodes if node not in taken],
        )

    def compile_specs(self) -> list[CompileSpec]:
        return [CompileSpec("way", self.way.encode())]

    def libraries(self) -> Sequence[Path]:
        return [self.library]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.abs())
        return y


def inputs() -> tuple[Tensor]:
    return (torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) + 0.5,)


def measured(backend: Backend, folder: Path) -> LoweredProgram:
    torch.manual_seed(0)
    table = folder / "costs.db"
    return lower(
        Model().eval(),
        inputs(),
        backends=[backend, "xnnpack"],
        tune="measure",
        threads=1,
        cost_table=table,
    )


def notes(program: LoweredProgram) -> str:
    plan = program.report.methods[0].plan
    assert plan is not None
    return "\n".join(plan.notes)


def expected() -> Tensor:
    torch.manual_seed(0)
    found: Tensor = Model().eval()(*inputs())
    return found


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("crashes", "crashing alone was left out: the process that ran it died of SIGSEGV"),
        ("hangs", "crashing alone was left out: it did not finish within 4 s"),
        ("is wrong", "crashing alone was left out: its results are off by"),
        ("helps itself", "threads at a time, where 1 was asked for"),
    ],
)
def test_what_goes_wrong_costs_that_plan_only(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, message: str
) -> None:
    monkeypatch.setattr(trial, "_LIMIT_S", 4.0)
    program = measured(Crashing(library, way), tmp_path)
    assert message in notes(program)
    assert NativeProgram(program.buffer).backends() in ((), ("XnnpackBackend",))
    assert torch.allclose(program(*inputs()), expected(), atol=1e-5)


def test_what_goes_well_is_timed(library: Path, tmp_path: Path) -> None:
    program = measured(Crashing(library, "copies"), tmp_path)
    assert "left out" not in notes(program)
    plan = program.report.methods[0].plan
    assert plan is not None
    names = {each.name for each in plan.alternatives if each.measured_ns is not None}
    assert "crashing alone" in names or "crashing alone" in notes(program)
    assert torch.allclose(program(*inputs()), expected(), atol=1e-5)


def test_methods_after_one_that_crashes_are_tried(library: Path, tmp_path: Path) -> None:
    """Each method of a program that dies is found out, and no other is blamed for it."""

    class Abs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs()

    programs = {
        name: torch.export.export(Abs().eval(), inputs()) for name in ("first", "second", "third")
    }
    backend = Crashing(library, "crashes")
    program = lower(programs, backends=[backend], strategy="greedy")
    file = tmp_path / "program.pte"
    program.save(file)
    leaves = dict.fromkeys(programs, inputs())
    found = try_out(file, leaves, [backend], threads=1)
    assert found.failures.keys() == set(programs)
    assert not found.outputs
    assert all("SIGSEGV" in each for each in found.failures.values())


def test_a_lowered_program_brings_its_delegate(library: Path) -> None:
    backend = Crashing(library, "copies")
    program = lower(Model().eval(), inputs(), backends=[backend], strategy="greedy")
    assert program.libraries["CrashingBackend"] == [library]
    assert torch.isfinite(program(*inputs())).all()
    load_libraries([library, library])  # which changes nothing
