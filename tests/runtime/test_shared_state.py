"""Mutable buffers that several methods name are one, here and in ExecuTorch's own Runtime."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from orchestrator import lower
from orchestrator.native import NativeProgram, ProgramState

X = torch.linspace(-1.0, 1.0, 6)
BACKENDS = pytest.mark.parametrize(
    "backends", [["ggml", "xnnpack"], ["xnnpack"], ["ggml"]], ids=lambda names: "-".join(names)
)


class Store(nn.Module):
    """A sum of all inputs that starts at a number, a count of calls, and a layer."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("total", torch.full((6,), start))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.layer = nn.Linear(6, 6)


class Add(nn.Module):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def forward(self, x: Tensor) -> Tensor:
        self.store.total.add_(x)
        self.store.count.add_(1)
        return self.store.layer(self.store.total)


class Scale(Add):
    def forward(self, x: Tensor) -> Tensor:
        self.store.total.mul_(x)
        return self.store.total.relu()


class Read(Add):
    """Reads what others write, as a weight, as a constant part of a product, and as it is."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        total = self.store.total
        twice = (total * 2.0).exp()  # of constants alone, were the buffer one
        return nn.functional.linear(x, total.reshape(1, 6)), twice, total, self.store.count + 1


METHODS: Mapping[str, type[Add]] = {"add": Add, "scale": Scale, "read": Read}


def exported(store: Store, **methods: type[Add]) -> dict[str, ExportedProgram]:
    """Methods as people export them: each from a copy of the model."""
    return {
        name: export(method(copy.deepcopy(store)).eval(), (X.clone(),))
        for name, method in (methods or METHODS).items()
    }


def assert_same_as_eager(run: Any, store: Store, calls: Sequence[str]) -> None:
    """Call methods in turn and compare all that they return; `run` takes a name and inputs."""
    store = copy.deepcopy(store)
    for index, name in enumerate(calls):
        x = X * (1.0 + index / 8) + 0.5
        with torch.no_grad():
            want = METHODS[name](store)(x)
        for got, expected in zip(
            torch.utils._pytree.tree_leaves(run(name, x)),
            torch.utils._pytree.tree_leaves(want),
            strict=True,
        ):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


CALLS = ["read", "add", "read", "scale", "add", "read", "add", "add", "scale", "read"]


@BACKENDS
@pytest.mark.parametrize("start", [0.0, 1.5], ids=["zeros", "initial values"])
def test_methods_see_what_others_wrote(backends: list[str], start: float) -> None:
    torch.manual_seed(0)
    store = Store(start)
    program = lower(exported(store), backends=backends, strategy="greedy")
    assert_same_as_eager(lambda name, x: program(x, method=name), store, CALLS)
    notes = {method.name: method.plan.notes for method in program.report.methods if method.plan}
    shared = "Buffers store.total, store.count are shared with"
    assert f"{shared} scale, read." in notes["add"]
    assert f"{shared} add, scale." in notes["read"]


@BACKENDS
def test_executorch_runs_such_programs_too(backends: list[str]) -> None:
    from executorch.runtime import Runtime

    torch.manual_seed(0)
    store = Store(1.5)
    buffer = lower(exported(store), backends=backends, strategy="greedy").buffer
    program = Runtime.get().load_program(buffer)
    methods = {name: program.load_method(name) for name in METHODS}
    assert_same_as_eager(lambda name, x: methods[name].execute([x]), store, CALLS)


def test_programs_that_executorch_lowers_with_shared_buffers_share_them() -> None:
    torch.manual_seed(0)
    store = Store()
    methods = exported(store, add=Add, scale=Scale)
    with torch.no_grad():
        edge = to_edge_transform_and_lower(methods)
    planning = MemoryPlanningPass(share_mutable_buffers=True)
    config = ExecutorchBackendConfig(memory_planning_pass=planning)
    program = NativeProgram(edge.to_executorch(config).buffer)
    calls = ["add", "scale", "add", "scale", "add"]
    assert_same_as_eager(lambda name, x: program.run(name, [x]), store, calls)


def test_state_is_kept_while_methods_are_unloaded() -> None:
    store = Store(2.0)
    methods = exported(store, add=Add, read=Read)
    program = NativeProgram(lower(methods, backends=[]).buffer)
    program.run("add", [torch.ones(6)])
    for name in ("add", "read"):
        program.unload(name)
    *_, total, count = program.run("read", [X])
    torch.testing.assert_close(total, torch.full((6,), 3.0))
    assert count == 2
    program.run("add", [torch.ones(6)])
    torch.testing.assert_close(program.run("read", [X])[2], torch.full((6,), 4.0))


def test_programs_do_not_share_state_with_each_other() -> None:
    buffer = lower(exported(Store(2.0), add=Add, read=Read), backends=[]).buffer
    first, second = NativeProgram(buffer), NativeProgram(buffer)
    first.run("add", [torch.ones(6)])
    torch.testing.assert_close(second.run("read", [X])[2], torch.full((6,), 2.0))


def test_methods_keep_their_own_state_where_they_do_not_share() -> None:
    methods = exported(Store(2.0), add=Add, scale=Scale)
    program = lower(methods, backends=[], share_buffers=False)
    program(torch.ones(6), method="add")
    torch.testing.assert_close(program(3 * torch.ones(6), method="scale"), torch.full((6,), 6.0))


@pytest.mark.parametrize("share", [True, False], ids=["shared", "each its own"])
def test_a_state_is_put_back(share: bool) -> None:
    torch.manual_seed(0)
    store = Store(1.5)
    buffer = lower(exported(store), backends=["ggml"], share_buffers=share).buffer
    program, other = NativeProgram(buffer), NativeProgram(buffer)
    calls = [(name, X * (1.0 + index / 8)) for index, name in enumerate(CALLS)]

    def run(program: NativeProgram, part: slice) -> list[Any]:
        return [value for name, x in calls[part] for value in program.run(name, [x])]

    run(program, slice(4))
    state = program.state()
    expected = run(program, slice(4, None))
    for at_another_state in (program, other):
        at_another_state.restore(state)
        for got, want in zip(run(at_another_state, slice(4, None)), expected, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "each its own"])
def test_a_reset_gives_buffers_their_first_values(share: bool) -> None:
    program = lower(exported(Store(2.0), add=Add, read=Read), backends=[], share_buffers=share)
    native = NativeProgram(program.buffer)
    first = native.state()
    for give in (native.reset, lambda: native.restore(first), native.reset):
        native.run("add", [torch.ones(6)])
        total = native.run("read", [X])[2]
        torch.testing.assert_close(total, torch.full((6,), 3.0 if share else 2.0))
        give()
        torch.testing.assert_close(native.run("read", [X])[2], torch.full((6,), 2.0))
    if share:
        program(torch.ones(6), method="add")
        program.reset()
        torch.testing.assert_close(program(X, method="read")[2], torch.full((6,), 2.0))


def test_the_state_of_methods_that_are_unloaded_is_kept() -> None:
    buffer = lower(exported(Store(2.0), add=Add, read=Read), backends=[]).buffer
    program, other = NativeProgram(buffer), NativeProgram(buffer)
    program.run("add", [torch.ones(6)])
    program.unload("add")
    other.restore(program.state())
    torch.testing.assert_close(other.run("read", [X])[2], torch.full((6,), 3.0))


def test_the_state_of_another_program_is_refused() -> None:
    one = NativeProgram(lower(exported(Store(2.0), add=Add, read=Read), backends=[]).buffer)
    other = NativeProgram(lower(nn.ReLU().eval(), (X,), backends=[]).buffer)
    one.run("add", [torch.ones(6)])
    other.run("forward", [X])
    state = one.state()
    with pytest.raises(ValueError, match="no method 'forward'; it has: add, read"):
        one.restore(other.state())
    cut = ProgramState(state.shared, {name: block[1:] for name, block in state.methods.items()})
    with pytest.raises(ValueError, match=r"state of method 'add' has \d+ bytes, expected \d+"):
        one.restore(cut)
    for shared in (b"", None, bytes(1_000)):
        with pytest.raises(ValueError, match=r"what methods share has \d+ bytes, expected \d+"):
            one.restore(ProgramState(shared, state.methods))
    torch.testing.assert_close(one.run("read", [X])[2], torch.full((6,), 3.0))


def test_the_place_of_a_buffer_does_not_depend_on_its_use_in_a_method() -> None:
    """Two methods that plan their own memory differently, and a cache of another size besides."""

    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("k", torch.zeros(1, 4, 8))
            self.register_buffer("v", torch.ones(1, 16, 3))
            self.register_buffer("steps", torch.zeros(1, dtype=torch.int32))

    class Fill(nn.Module):
        def __init__(self, caches: Caches) -> None:
            super().__init__()
            self.caches = caches

        def forward(self, k: Tensor, at: Tensor) -> Tensor:
            self.caches.steps.add_(1)
            self.caches.k.index_copy_(1, at, k.sin())
            self.caches.v.index_copy_(1, at, k[..., :3] * 2)
            return self.caches.k @ self.caches.k.mT

    class Sum(Fill):
        def forward(self, k: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
            self.caches.v.mul_(2)
            return self.caches.v.sum(1) * self.caches.steps, self.caches.k.sum(1)

    def args(count: int, start: int) -> tuple[Tensor, Tensor]:
        return torch.arange(8.0 * count).reshape(1, count, 8), torch.arange(start, start + count)

    caches = Caches()
    methods = {
        "fill": export(Fill(copy.deepcopy(caches)), args(3, 0)),
        "step": export(Fill(copy.deepcopy(caches)), args(1, 3)),
        "sum": export(Sum(copy.deepcopy(caches)), args(1, 3)),
    }
    program = lower(methods, strategy="greedy")
    eager = {"fill": Fill(caches), "step": Fill(caches), "sum": Sum(caches)}
    for name in ("sum", "fill", "step", "sum", "step", "fill", "sum"):
        inputs = args(3, 0) if name == "fill" else args(1, 3)
        torch.testing.assert_close(program(*inputs, method=name), eager[name](*inputs))
