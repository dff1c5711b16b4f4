"""Branches of torch.cond are planned and delegated too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from orchestrator import LoweredProgram, lower
from orchestrator.native import NativeProgram
from orchestrator.planner import ConstraintError
from orchestrator.report.data import BranchCalls
from orchestrator.report.measured import with_profile
from orchestrator.verify import verify


class Gated(nn.Module):
    """Takes one branch where the mean is above zero, the other one elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Sequential(nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 12))
        self.narrow = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        def narrow(y: Tensor) -> Tensor:
            return torch.tanh(self.narrow(y))

        return self.head(torch.cond(x.mean() > 0, self.wide.forward, narrow, (x,)))


class Images(nn.Module):
    """Convolutions before, in and after the branches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inside, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        def convolved(y: Tensor) -> Tensor:
            return self.inside(y).relu()

        x = self.first(x)
        return self.last(torch.cond(x.mean() > 0, convolved, lambda y: y.flip(-1) + 1, (x,)))


class Nested(nn.Module):
    """A cond in a branch, a branch that returns its input, and a constant in another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        def inner(y: Tensor) -> Tensor:
            return torch.cond(
                y.amax() > 1,
                lambda z: torch.relu(self.layer(z)) + torch.ones(6),
                lambda z: z.clone(),
                (y,),
            )

        return torch.cond(x.mean() > 0, inner, lambda y: self.layer(y) * 2, (x,)) + 1


def _agree(program: LoweredProgram, model: nn.Module, *inputs: Tensor) -> None:
    for x in inputs:
        torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def _signs(*sizes: int) -> list[Tensor]:
    x = torch.randn(sizes, generator=torch.Generator().manual_seed(1))
    x = x - x.mean()
    return [x + 0.5, x - 0.5, x + 0.05, x + 3]


def _notes(program: LoweredProgram) -> list[str]:
    plan = program.report.methods[0].plan
    assert plan is not None
    return [note for note in plan.notes if "a branch of" in note]


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear layers": (Gated, (3, 12)),
    "images": (Images, (2, 4, 6, 5)),
    "nested": (Nested, (4, 6)),
}


@pytest.mark.parametrize("strategy", ["greedy", "cost"])
@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("xnnpack",), ()])
@pytest.mark.parametrize("name", MODELS)
def test_either_branch_is_right(name: str, backends: tuple[str, ...], strategy: Any) -> None:
    make, sizes = MODELS[name]
    model = make().eval()
    inputs = _signs(*sizes)
    program = lower(model, (inputs[0],), backends=backends, strategy=strategy)
    _agree(program, model, *inputs)


def test_branches_go_to_delegates_and_the_report_says_so() -> None:
    program = lower(Gated().eval(), (_signs(3, 12)[0],), strategy="greedy")
    assert _notes(program) == [
        "Nodes of submodule_0, a branch of cond: 5 on ggml.",
        "Nodes of submodule_1, a branch of cond: 3 on ggml.",
    ]
    (method,) = program.report.methods
    assert method.branch_calls == (BranchCalls(1, (1,)),)


def test_a_dynamic_batch() -> None:
    model = Gated().eval()
    inputs = _signs(3, 12)
    shapes = ({0: Dim("n", min=1, max=9)},)
    program = lower(model, (inputs[0],), strategy="greedy", dynamic_shapes=shapes)
    _agree(program, model, *inputs, *_signs(9, 12), *_signs(1, 12))


def test_what_is_excluded_is_excluded_in_branches() -> None:
    """Also what is in no other place."""
    model = Gated().eval()
    x = _signs(3, 12)[0]
    program = lower(model, (x,), strategy="greedy", exclude=["gelu", "tanh"])
    assert [("1 on kernels" in note, "ggml" in note) for note in _notes(program)] == [
        (True, True)
    ] * 2
    _agree(program, model, *_signs(3, 12))
    with pytest.raises(ConstraintError, match="matches nothing"):
        lower(model, (x,), strategy="greedy", exclude=["gelu", "tan"])


def test_a_profile_shows_what_is_around_the_branches() -> None:
    """Two delegate calls of the method's own, and one of the branch that was taken."""
    x = _signs(3, 12)[0]
    program = lower(Gated().eval(), (x,), strategy="greedy")
    native = NativeProgram(program.buffer, etdump=True)
    native.run("forward", [x])
    report = with_profile(program.report, native.etdump())
    times = [segment.measured_ns for segment in report.methods[0].partitions]
    assert len(times) == 2
    assert all(time is not None and time > 0 for time in times)


def test_a_limit_on_partitions_keeps_branches_on_kernels() -> None:
    model = Gated().eval()
    program = lower(model, (_signs(3, 12)[0],), max_partitions=1)
    assert all("ggml" not in note for note in _notes(program))
    assert len(program.report.methods[0].partitions) <= 1
    _agree(program, model, *_signs(3, 12))


def test_a_kernel_that_a_branch_lacks_is_named() -> None:
    class Lacking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.mean() > 0, lambda y: y.lgamma(), lambda y: y.sin(), (x,))

    with pytest.warns(UserWarning, match="lgamma"):
        lower(Lacking(), (torch.ones(3),))


def test_results_are_verified(tmp_path: Path) -> None:
    model = Gated().eval()
    for number, x in enumerate(_signs(3, 12)[:2]):
        program = lower(model, (x,), strategy="greedy")
        path = tmp_path / f"{number}.pte"
        program.save(path)
        assert verify(path, model, (x,)).first_off is None
