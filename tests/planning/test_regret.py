"""Plans of programs with dynamic sizes, at other sizes than the expected ones."""

from __future__ import annotations

import re

import torch
from torch import nn

from orchestrator import lower
from orchestrator.planner import Atom, Backend, Constraints, CostGraph, solve
from orchestrator.planning.regret import Regret


def _notes(dynamic_shapes: object) -> list[str]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU()).eval()
    program = lower(model, (torch.randn(4, 8),), tune="off", dynamic_shapes=dynamic_shapes)
    return [note for note in program.plan["forward"].notes if note.startswith("At ")]


def test_the_smallest_and_the_largest_sizes_are_looked_at() -> None:
    batch = torch.export.Dim("batch", min=2, max=6)
    notes = _notes({"input": {0: batch}})
    sizes = [int(re.search(r"=(\d+)", note).group(1)) for note in notes]  # type: ignore[union-attr]
    assert sizes == [2, 6]
    assert all("more than the best one there" in note for note in notes)


def test_without_a_bound_a_multiple_of_the_expected_size_is_looked_at() -> None:
    notes = _notes({"input": {0: torch.export.Dim("batch")}})
    assert "=32 the plan" in notes[-1]


def test_static_sizes_have_no_other_points() -> None:
    assert _notes(None) == []


def test_regret_is_a_part_of_the_best_plan() -> None:
    regret = Regret({"s0": 1}, plan_ns=1_500.0, best_ns=1_000.0)
    assert str(regret) == (
        "At s0=1 the plan is predicted to take 1.5 us, 50.0% more than the best one there."
    )
    graph = CostGraph([Backend("ggml")], [Atom("a", {"ggml": 3.0})])
    assert Regret({}, solve(graph, Constraints()).total_ns, 3.0).part == 0.0


def test_sizes_that_the_model_cannot_have_are_not_looked_at() -> None:
    """The least number of elements is 2, of which there are no three rows."""

    class Rows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(3, -1).sin()

    auto = torch.export.Dim.AUTO(min=1, max=30)
    program = lower(Rows(), (torch.randn(15),), tune="off", dynamic_shapes=({0: auto},))
    for count in (3, 15, 30):
        x = torch.randn(count)
        torch.testing.assert_close(program(x), x.view(3, -1).sin())
