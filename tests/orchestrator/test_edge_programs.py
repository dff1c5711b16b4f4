"""Programs in the edge dialect serve several plans, and each plan finds all weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram, export

import orchestrator.edge_programs as edge_programs
from orchestrator.backends import Backend, resolve_backends
from orchestrator.edge_programs import EdgePrograms
from orchestrator.flow import to_edge_with
from orchestrator.frontend.rewrites import Rewriting
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner
from orchestrator.planning.choice import Choice

BACKENDS = resolve_backends(["ggml", "xnnpack"])
ORDERS = {"ggml first": ("ggml", "xnnpack"), "xnnpack first": ("xnnpack", "ggml")}
X = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)


class Net(nn.Module):
    """A convolution with a batch norm, whose weights are folded, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.last = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.conv(x)).flatten(2).transpose(1, 2))


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The methods that were brought to the edge dialect, in turn."""
    made: list[str] = []
    make = edge_programs.to_edge_transform_and_lower

    def noting(programs: dict[str, ExportedProgram], **options: object) -> object:
        made.extend(programs)
        return make(programs, **options)

    monkeypatch.setattr(edge_programs, "to_edge_transform_and_lower", noting)
    yield made


def lowered(
    program: ExportedProgram,
    choices: dict[str, Choice],
    kept: EdgePrograms,
    backends: tuple[Backend, ...] = BACKENDS,
) -> tuple[NativeProgram, dict[str, set[str]]]:
    """The program under each choice, and by method the backends that have a part of it."""

    def partitioner(name: str, rewriting: Rewriting) -> OrchestratorPartitioner:
        options = PlanOptions(tune="off")
        return OrchestratorPartitioner(backends, options, choice=choices[name], rewriting=rewriting)

    programs = dict.fromkeys(choices, program)
    edge, partitioners = to_edge_with(programs, partitioner, prepared=kept)
    used = {
        name: {segment.backend for segment in each.results[-1].plan.partitions}
        for name, each in partitioners.items()
    }
    return NativeProgram(edge.to_executorch().buffer), used


def test_plans_that_differ_in_the_split_alone_share_a_program(prepared: list[str]) -> None:
    model = Net().eval()
    program, kept = export(model, (X,)), EdgePrograms()
    choices = {name: Choice.greedy(order) for name, order in ORDERS.items()}
    for _ in range(2):  # the second time, what delegates took the first time is still there
        native, used = lowered(program, choices, kept)
        assert used["ggml first"] == {"ggml"}
        assert "xnnpack" in used["xnnpack first"]
        for name in choices:
            (result,) = native.run(name, [X])
            torch.testing.assert_close(result, model(X))
    assert prepared == ["ggml first"]


def test_other_preserved_ops_need_another_program(prepared: list[str]) -> None:
    """A layer norm is not decomposed for ggml; XNNPACK takes its parts."""
    model = Net().eval()
    program, kept = export(model, (X,)), EdgePrograms()
    choices = {"ggml": Choice.of_one("ggml"), "xnnpack": Choice.of_one("xnnpack")}
    native, used = lowered(program, choices, kept)
    assert used == {"ggml": {"ggml"}, "xnnpack": {"xnnpack"}}
    assert prepared == ["ggml", "xnnpack"]
    for name in choices:
        (result,) = native.run(name, [X])
        torch.testing.assert_close(result, model(X))


def test_another_program_is_another(prepared: list[str]) -> None:
    kept = EdgePrograms()
    choice = {"forward": Choice()}
    lowered(export(Net().eval(), (X,)), choice, kept)
    lowered(export(Net().eval(), (X,)), choice, kept)
    assert prepared == ["forward", "forward"]
