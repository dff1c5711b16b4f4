"""A third party's backend is planned, lowered, run and reported like those shipped here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator import lower, render_text
from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.candidates import collect_candidates
from orchestrator.cost.environment import versions_of
from tests.backends.toy import Toy
from tests.harness.compare import assert_close_to_eager
from tests.harness.fakes import edge_program

DOCS = Path(__file__).parents[2] / "docs" / "adding-a-backend.md"


class Sums(nn.Module):
    """Five ops in a row that the toy takes, then one that it lacks."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp((((x + y) * y + x) * 0.5 + y) - y.cos())


class Image(nn.Module):
    """Sums of images between convolutions, which others compute in channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        z = self.second(y + y * x)
        return z + x * z


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 5), torch.randn(3, 5)


@pytest.mark.parametrize("strategy", ["cost", "greedy"])
def test_its_segments_pass_its_check(
    inputs: tuple[torch.Tensor, torch.Tensor], strategy: str
) -> None:
    program = lower(Sums(), inputs, backends=[Toy(), "ggml"], strategy=strategy, tune="off")
    method = program.report.methods[0]
    sizes = [len(part.nodes) for part in method.partitions if part.backend == "toy"]
    assert len(sizes) == 2 and max(sizes) <= 3
    assert any("toy takes 3 ops at once" in note for note in program.plan["forward"].notes)
    others = (torch.randn(3, 5), torch.randn(3, 5))
    assert_close_to_eager(program, Sums(), inputs, other_inputs=others, tolerance=1e-5)


def test_its_rates_decide(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    """It is faster than the others by its own account, and preferred for that alone."""
    program = lower(Sums(), inputs, backends=["ggml", "xnnpack", Toy()], tune="off")
    assert "toy" in program.plan["forward"].assignment.values()


@pytest.mark.parametrize("others", [("xnnpack",), ("ggml", "xnnpack")])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_it_gets_contiguous_tensors_only(
    others: tuple[str, ...], order: torch.memory_format
) -> None:
    model, x = Image().eval(), torch.randn(2, 4, 5, 7).to(memory_format=order)
    program = lower(model, (x,), backends=[Toy(), *others], strategy="greedy", tune="off")
    parts = [part for part in program.report.methods[0].partitions if part.backend == "toy"]
    crossing = [tensor for part in parts for tensor in (*part.inputs, *part.outputs)]
    assert {tensor.layout for tensor in crossing} <= {"contiguous"}
    other = (torch.randn(2, 4, 5, 7).to(memory_format=order),)
    assert_close_to_eager(program, model, (x,), other_inputs=other, tolerance=1e-5)


def test_what_it_rejects_is_reported_with_its_remedy(
    inputs: tuple[torch.Tensor, torch.Tensor],
) -> None:
    program = lower(Sums(), inputs, backends=[Toy()], tune="off")
    found = [each for each in program.report.methods[0].rejections if each.backend == "toy"]
    assert {each.code for each in found} == {"op"}
    assert {each.remedy for each in found} == {"write it with sums and products"}
    assert "write it with sums and products" in " ".join(render_text(program.report).split())


def test_images_in_channels_last_are_rejected_with_a_code() -> None:
    x = torch.randn(2, 4, 5, 7).to(memory_format=torch.channels_last)
    ep = edge_program(Image(), x)
    (sums,) = ({each.code for each in collect_candidates(ep, [Toy()]).rejections},)
    assert sums == {"op", "dim-order"}


def test_its_costs_hold_for_its_own_software() -> None:
    """An edit of ggml's delegate, which is in ggml's versions, does not concern XNNPACK's costs."""
    versions = versions_of([*resolve_backends(["ggml", "xnnpack"]), Toy()])
    assert "ggml delegate" in versions["ggml"]
    assert versions["xnnpack"].startswith(f"{versions['portable']}, passes ")
    assert "ggml delegate" not in versions["xnnpack"]
    assert versions["toy"].startswith(f"{versions['portable']}, tests ")


def test_the_docs_name_all_that_a_backend_may_say() -> None:
    members = {name for name in vars(Backend) if not name.startswith("_")}
    members |= {name for name in Backend.__annotations__ if not name.startswith("_")}
    text = DOCS.read_text()
    documented = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))
    needed = {"name", "backend_id", "propose"}
    assert documented == members - needed
    assert all(f"    {name} =" in text or f"    def {name}(" in text for name in needed)
