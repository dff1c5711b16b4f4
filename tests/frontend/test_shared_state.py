"""Which buffers methods share, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from executorch.exir import ExecutorchBackendConfig
from executorch.exir.memory_planning import MemoryPlanningAlgorithmSuite
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from orchestrator import ModelError, OptionError, lower
from orchestrator.frontend.shared_state import share_state, shared_config

X = torch.ones(4)


class Counter(nn.Module):
    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.register_buffer("state", state)
        self.register_buffer("scale", torch.full((4,), 3.0))


class Write(nn.Module):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def forward(self, x: Tensor) -> Tensor:
        self.counter.state.add_(1)
        return x + self.counter.state.sum() * self.counter.scale


class Look(nn.Module):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.inner = counter

    def forward(self, x: Tensor) -> Tensor:
        return x * self.inner.state.sum() + self.inner.scale


class Peek(Write):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.counter.state.sum()


def methods(*models: nn.Module) -> dict[str, ExportedProgram]:
    return {f"m{i}": export(model, (X,)) for i, model in enumerate(models)}


def test_buffers_that_nobody_writes_are_constants() -> None:
    counter = Counter(torch.zeros(4))
    programs = methods(Peek(counter), Peek(counter))
    shared = share_state(programs)
    assert shared.methods == {}
    assert shared.programs is programs or dict(shared.programs) == programs


def test_only_buffers_that_some_method_writes_are_shared() -> None:
    counter = Counter(torch.zeros(4))
    shared = share_state(methods(Write(counter), Peek(counter), Peek(counter)))
    assert shared.methods == {"counter.state": ("m0", "m1", "m2")}
    assert list(shared.notes("m1")) == ["Buffer counter.state is shared with m0, m2."]


@pytest.mark.parametrize(
    ("count", "note"),
    [
        (3, "Buffers 0.state, 1.state, 2.state are shared with m1 (1.20 MB)."),
        (60, "60 buffers are shared with m1 (24.00 MB): 0.state, 1.state, ..., 59.state."),
    ],
)
def test_many_buffers_are_one_note(count: int, note: str) -> None:
    class All(nn.ModuleList):
        def forward(self, x: Tensor) -> Tensor:
            for each in self:
                each.state.add_(x.sum())
            return x + 1

    counters = [Counter(torch.zeros(100_000)) for _ in range(count)]
    assert list(share_state(methods(All(counters), All(counters))).notes("m0")) == [note]


@pytest.mark.parametrize("functional", [False, True])
def test_one_buffer_under_two_names_is_one(functional: bool) -> None:
    counter = Counter(torch.zeros(4))
    programs = methods(Write(counter), Look(counter))
    if functional:
        programs = {name: program.run_decompositions({}) for name, program in programs.items()}
    assert share_state(programs).methods == {"counter.state": ("m0", "m1")}
    assert "inner.state" in programs["m1"].graph_signature.inputs_to_buffers.values()
    program = lower(programs, strategy="greedy")
    eager = {"m0": Write(copy.deepcopy(counter))}
    eager["m1"] = Look(eager["m0"].counter)  # type: ignore[assignment]
    for name in ("m1", "m0", "m1", "m0", "m0", "m1"):
        torch.testing.assert_close(program(X, method=name), eager[name](X))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (torch.zeros(3), r"its sizes are \[3\] here and \[4\] there"),
        (torch.zeros(4, dtype=torch.int64), "it is int64 here and float32 there"),
        (torch.ones(4), "its contents differ"),
    ],
)
def test_buffers_that_cannot_be_one_are_an_error(state: Tensor, why: str) -> None:
    programs = methods(Write(Counter(torch.zeros(4))), Peek(Counter(state)))
    with pytest.raises(
        ModelError, match=f"method 'm1' cannot share the mutable buffer 'counter.state' .*{why}"
    ):
        lower(programs)
    lower(programs, backends=[], share_buffers=False)


class _Planning(MemoryPlanningPass):
    pass


@pytest.mark.parametrize(
    ("planning", "why"),
    [
        (_Planning(), "its pass is a _Planning"),
        ({"m0": MemoryPlanningPass(), "m1": MemoryPlanningPass()}, "passes of their own"),
    ],
)
def test_memory_planning_that_cannot_share_is_an_error(planning: Any, why: str) -> None:
    counter = Counter(torch.zeros(4))
    config = ExecutorchBackendConfig(memory_planning_pass=planning)
    with pytest.raises(OptionError, match=f"'counter.state', of methods m0, m1: .*{why}"):
        lower(methods(Write(counter), Peek(counter)), backends=[], backend_config=config)


def test_the_users_memory_planning_is_kept_but_for_sharing() -> None:
    algorithm = MemoryPlanningAlgorithmSuite()
    config = ExecutorchBackendConfig(
        memory_planning_pass=MemoryPlanningPass(algorithm, alloc_graph_input=False, alignment=64),
        emit_stacktrace=True,
    )
    made = shared_config(config, {"k": ("a", "b")})
    assert made is not None
    assert made.emit_stacktrace
    planning: Any = made.memory_planning_pass
    assert planning.share_mutable_buffers
    assert planning.memory_planning_algo is algorithm
    assert (planning.alloc_graph_input, planning.alignment) == (False, 64)
    assert not config.memory_planning_pass.share_mutable_buffers  # type: ignore[union-attr]
    assert shared_config(config, {}) is config
