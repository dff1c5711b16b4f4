"""What happens when a backend, or ExecuTorch, fails on a program that is being lowered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from executorch.exir.backend.backend_details import BackendDetails, PreprocessResult
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator import LoweringError, LoweringWarning, PlanOptions, lower
from orchestrator.flow import to_edge_with
from orchestrator.graph.queries import compute_nodes
from orchestrator.partitioner import OrchestratorPartitioner
from tests.harness.fakes import OpsBackend, short_name


def _visit(node: Node) -> None:
    if short_name(node) == "sin":
        raise ValueError(f"no sine in {node.name}\nsecond line")


class FailingVisitor(BackendDetails):  # type: ignore[misc]  # executorch is untyped
    """Fails while it works on a sine."""

    @staticmethod
    def preprocess(edge_program: ExportedProgram, compile_specs: list[CompileSpec]) -> None:
        for node in compute_nodes(edge_program):
            _visit(node)
        raise AssertionError("nothing but sines was expected")


class FailingWhole(BackendDetails):  # type: ignore[misc]
    """Fails without a word about a node."""

    @staticmethod
    def preprocess(
        edge_program: ExportedProgram, compile_specs: list[CompileSpec]
    ) -> PreprocessResult:
        raise KeyError("memory")


class Fake(OpsBackend):
    def __init__(self, backend_id: str, ops: Sequence[str]) -> None:
        super().__init__("fake", ops)
        self.backend_id = backend_id


class Waves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * 2.0) + torch.cos(x)


X = (torch.linspace(-1.0, 1.0, 5),)


def test_the_node_that_a_backend_fails_on_goes_elsewhere_with_a_warning() -> None:
    fake = Fake("FailingVisitor", ["sin"])
    message = r"FailingVisitor failed to compile aten_sin_default \(aten.sin.default\): ValueError"
    with pytest.warns(LoweringWarning, match=message) as caught:
        program = lower(Waves(), X, backends=[fake, "xnnpack"], strategy="greedy")
    assert sum("failed to compile" in str(each.message) for each in caught) == 1
    torch.testing.assert_close(program(*X), Waves()(*X))
    (method,) = program.report.methods
    assert {each.backend for each in method.partitions} == {"xnnpack"}
    (rejection,) = (
        each
        for each in method.rejections
        if each.node == "aten_sin_default" and each.backend == "fake"
    )
    assert rejection.reason == "fake failed to compile it: ValueError: no sine in aten_sin_default"


def test_a_segment_that_a_backend_fails_on_goes_elsewhere() -> None:
    fake = Fake("FailingWhole", ["sin", "mul", "cos", "add"])
    with pytest.warns(LoweringWarning, match="FailingWhole failed to compile .*KeyError: 'memory'"):
        program = lower(Waves(), X, backends=[fake], strategy="greedy")
    torch.testing.assert_close(program(*X), Waves()(*X))
    assert program.report.methods[0].partitions == ()


def test_a_backend_that_fails_again_and_again_gets_nothing_more() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(7):
                x = torch.sin(x) + 1
            return x

    with pytest.warns(LoweringWarning, match="FailingVisitor") as caught:
        program = lower(Many(), X, backends=[Fake("FailingVisitor", ["sin"])], strategy="greedy")
    assert 1 < sum("failed to compile" in str(each.message) for each in caught) < 7
    torch.testing.assert_close(program(*X), Many()(*X))


def test_without_another_round_the_error_names_nodes_backend_and_a_way_out() -> None:
    exported = torch.export.export(Waves(), X)
    fake, greedy = Fake("FailingVisitor", ["sin"]), PlanOptions(strategy="greedy")
    with pytest.raises(LoweringError, match=r"exclude=\{'aten_sin_default': BACKEND\}") as caught:
        to_edge_with({"forward": exported}, lambda *_: OrchestratorPartitioner([fake], greedy))
    assert isinstance(caught.value.__cause__, ValueError)


def test_errors_of_executorch_itself_name_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("internal: node aten_sin_default\nmore")

    monkeypatch.setattr("executorch.exir.EdgeProgramManager.to_executorch", fail)
    with pytest.raises(LoweringError, match=r"internal: node aten_sin_default\. Try .*exclude="):
        lower(Waves(), X, backends=[])
