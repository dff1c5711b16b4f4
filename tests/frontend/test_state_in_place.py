"""State that a delegate changes where it lies: which copies go, and that numbers stay right."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from executorch.exir import ExecutorchBackendConfig
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.schema import DelegateCall, KernelCall
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.functional import scaled_dot_product_attention as attention

from orchestrator import LoweredProgram, lower
from orchestrator.backends.ggml import GgmlDelegate
from orchestrator.cost.analytic import estimate_ns

HEADS, ROOM, DEPTH = 2, 24, 8


def _copies(program: LoweredProgram, method: str = "forward") -> int:
    """How many tensors ExecuTorch copies into buffers in each run of a method."""
    return _kernels(program, method)["aten::copy_"]


def _kernels(program: LoweredProgram, method: str = "forward") -> Counter[str]:
    plan = _plan(program, method)
    calls = (each.instr_args for chain in plan.chains for each in chain.instructions)
    return Counter(
        plan.operators[call.op_index].name for call in calls if isinstance(call, KernelCall)
    )


def _plan(program: LoweredProgram, method: str) -> Any:
    plans = deserialize_pte_binary(program.buffer).program.execution_plan
    return next(plan for plan in plans if plan.name == method)


def _shared_values(program: LoweredProgram, method: str = "forward") -> int:
    """How many values are both an argument and a result of a delegate call."""
    calls = (each.instr_args for c in _plan(program, method).chains for each in c.instructions)
    return sum(
        len(call.args) - len(set(call.args)) for call in calls if isinstance(call, DelegateCall)
    )


def _random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


class Cache(nn.Module):
    """Attention over a cache that each call adds rows to.

    write: gives the cache's new value, or changes it, from cache, rows and places.
    """

    def __init__(
        self,
        write: Callable[[Tensor, Tensor, Tensor], Tensor | None],
        layers: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.write = write
        self.layers = layers
        for i in range(layers):
            for name in ("k", "v"):
                zeros = torch.zeros(1, HEADS, ROOM, DEPTH, dtype=dtype)
                self.register_buffer(f"{name}{i}", zeros)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        for i in range(self.layers):
            k, v = getattr(self, f"k{i}"), getattr(self, f"v{i}")
            self.write(k, x * 0.5, places)
            self.write(v, x + 1, places)
            seen = torch.arange(ROOM) <= places[-1]
            x = x + attention(x, k, v, attn_mask=seen[None, None, None])
        return x


def _index_put(cache: Tensor, rows: Tensor, places: Tensor) -> None:
    cache[:, :, places] = rows


def _index_copy(cache: Tensor, rows: Tensor, places: Tensor) -> None:
    cache.index_copy_(2, places, rows)


def _inputs(count: int, start: int, seed: int) -> tuple[Tensor, Tensor]:
    return _random(1, HEADS, count, DEPTH, seed=seed), torch.arange(start, start + count)


def _check(
    program: LoweredProgram, eager: nn.Module, calls: Sequence[Sequence[Any]], rtol: float = 1e-5
) -> None:
    for call in calls:
        expected, actual = eager(*call), program(*call)
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol)


def _lower(model: nn.Module, inputs: Sequence[Any], **options: Any) -> LoweredProgram:
    options = {"backends": ["ggml"], "tune": "off", "strategy": "greedy", **options}
    return lower(copy.deepcopy(model), tuple(inputs), **options)


@pytest.mark.parametrize("write", [_index_put, _index_copy])
@pytest.mark.parametrize("layers", [1, 3])
def test_caches_of_all_layers_are_changed_where_they_lie(
    write: Callable[..., None], layers: int
) -> None:
    model = Cache(write, layers)
    program = _lower(model, _inputs(1, 0, 0))
    assert _copies(program) == 0
    assert _shared_values(program) == 2 * layers
    _check(program, model, [_inputs(1, i, i) for i in range(ROOM)])


class Ring(nn.Module):
    """A buffer of which each call sets a part that is known when it is exported."""

    def __init__(self, write: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.write = write
        self.register_buffer("state", _random(3, 5, 4, seed=9))

    def forward(self, x: Tensor) -> Tensor:
        self.state.copy_(self.write(self.state, x))
        return self.state.sum(0) * x[0, 0]


@pytest.mark.parametrize(
    "write",
    [
        lambda state, x: torch.slice_scatter(state, x[:, :2], 1, 1, 3),
        lambda state, x: torch.slice_scatter(state, x, 1, -5),
        lambda state, x: torch.slice_scatter(state, x[..., :1], 2, 3),
        lambda state, x: torch.slice_scatter(
            torch.slice_scatter(state, x[:, 2:], 1, 0, 3), x[:1], 0, 2
        ),
    ],
)
def test_a_part_at_a_fixed_place(write: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Ring(write)
    program = _lower(model, [_random(3, 5, 4, seed=0)])
    assert _copies(program) == 0
    _check(program, model, [[_random(3, 5, 4, seed=i)] for i in range(3)])


class Prefix(nn.Module):
    """Slots of a cache that are numbers in the model's code, assigned as models write it."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.register_buffer("cache", torch.zeros(2, 3, 10, 4))

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[2]
        self.cache[: x.shape[0], :, self.start : self.start + count] = x
        return self.cache.sum(2)


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("dynamic", [False, True])
def test_slots_that_the_model_numbers(start: int, dynamic: bool) -> None:
    model = Prefix(start)
    shapes = ({2: Dim("n", min=2, max=6)},) if dynamic else None
    program = _lower(model, [_random(2, 3, 4, 4, seed=0)], dynamic_shapes=shapes)
    assert _copies(program) == 0
    counts = (4, 6, 2) if dynamic else (4, 4, 4)
    _check(program, model, [[_random(2, 3, n, 4, seed=n)] for n in counts])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.int32])
def test_state_of_other_dtypes(dtype: torch.dtype) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(6, 4, dtype=dtype))

        def forward(self, x: Tensor, places: Tensor) -> Tensor:
            self.state[places] = x
            return self.state.to(torch.float32).cumsum(0)

    model = Model()
    calls = [
        ((_random(2, 4, seed=i) * 10).to(dtype), torch.tensor([i, (3 * i + 1) % 6]))
        for i in range(6)
    ]
    program = _lower(model, calls[0])
    assert _copies(program) == 0
    _check(program, model, calls)


class Reader(Cache):
    """Reads the caches besides, as `read` says: before they are written, or after."""

    def __init__(self, read: str) -> None:
        super().__init__(_index_put)
        self.read = read

    def forward(self, x: Tensor, places: Tensor) -> Any:
        before = self.k0.exp() if "before" in self.read else x
        y = super().forward(x, places)
        if "elsewhere" in self.read:
            return y, torch.topk(self.k0.reshape(-1), 3)[0], before
        if "returned" in self.read:
            return y, self.k0, before
        return y, self.k0.exp() + self.k0, before


@pytest.mark.parametrize(
    ("read", "pins", "copied"),
    [
        ("after", {}, 0),
        ("after", {"exp": "xnnpack"}, 0),
        ("before", {}, 1),
        ("elsewhere", {}, 0),
        ("before and elsewhere", {}, 1),
        ("before and elsewhere", {"exp": "xnnpack"}, 0),
        ("returned", {}, 1),
    ],
)
def test_who_else_may_read_a_cache(read: str, pins: Mapping[str, str], copied: int) -> None:
    model = Reader(read)
    program = _lower(model, _inputs(1, 0, 0), backends=["ggml", "xnnpack"], pins=pins)
    assert _copies(program) == copied, _kernels(program)
    kept = []
    for i in range(5):
        call = _inputs(1, i, i)
        expected, actual = model(*call), program(*call)
        torch.testing.assert_close(actual, expected)
        kept.append((copy.deepcopy(expected), actual))
    for expected, actual in kept:  # what was handed out before is the caller's own
        torch.testing.assert_close(actual, expected)


class Two(Cache):
    """Another backend reads the old cache before the delegate call that changes it."""

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        old = torch.topk(self.k0.reshape(-1), 1)[0]
        return super().forward(x + old, places)


def test_a_kernel_that_reads_the_old_cache_first() -> None:
    model = Two(_index_put)
    program = _lower(model, _inputs(1, 0, 0))
    assert _copies(program) == 0
    _check(program, model, [_inputs(1, i, i) for i in range(5)])


def test_state_that_kernels_write_is_copied_as_before() -> None:
    model = Cache(_index_put)
    program = _lower(model, _inputs(1, 0, 0), exclude=["index_put"])
    assert _copies(program) == 2
    _check(program, model, [_inputs(1, i, i) for i in range(3)])


@pytest.mark.parametrize("planning", ["default", "by method", "named buffers"])
def test_the_users_memory_planning_is_kept(planning: str) -> None:
    plain = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    config = {
        "default": ExecutorchBackendConfig(memory_planning_pass=plain),
        "by method": ExecutorchBackendConfig(memory_planning_pass={"forward": plain}),
        "named buffers": ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(alloc_mutable_buffers=False),
            emit_mutable_buffer_names=True,
        ),
    }[planning]
    model = Cache(_index_put)
    program = _lower(model, _inputs(1, 0, 0), backend_config=config)
    assert _copies(program) == 0
    if planning != "named buffers":  # this project's runtime has none to provide
        _check(program, model, [_inputs(1, i, i) for i in range(3)])


def _methods(model: Cache, **examples: Sequence[Any]) -> dict[str, ExportedProgram]:
    return {name: export(model, tuple(inputs)) for name, inputs in examples.items()}


def test_methods_that_share_state_see_what_each_other_wrote() -> None:
    model = Cache(_index_put, layers=2)
    programs = _methods(model, prefill=_inputs(6, 0, 0), decode=_inputs(1, 0, 0))
    program = lower(programs, backends=["ggml"], tune="off", strategy="greedy")
    assert (_copies(program, "prefill"), _copies(program, "decode")) == (0, 0)
    for method, call in [
        ("prefill", _inputs(6, 0, 1)),
        *(("decode", _inputs(1, 6 + i, i)) for i in range(4)),
        ("prefill", _inputs(6, 0, 5)),
        ("decode", _inputs(1, 6, 6)),
    ]:
        torch.testing.assert_close(program(*call, method=method), model(*call))


def test_initial_values_other_than_zeros() -> None:
    model = Cache(_index_put)
    model.k0.copy_(_random(1, HEADS, ROOM, DEPTH, seed=3))
    program = _lower(model, _inputs(1, 0, 0))
    assert _copies(program) == 0
    _check(program, model, [_inputs(1, i, i) for i in (7, 2, 0)])


def test_dynamic_counts_of_rows() -> None:
    model = Cache(_index_put)
    n = Dim("n", min=1, max=16)
    program = _lower(model, _inputs(4, 0, 0), dynamic_shapes=({2: n}, {0: n}))
    assert _copies(program) == 0
    _check(program, model, [_inputs(*each, 0) for each in ((3, 0), (1, 3), (7, 4), (1, 11))])


class Several(nn.Module):
    """Two buffers, the second of which is written at places of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(6, 4))
        self.register_buffer("b", torch.zeros(6, 4))

    def forward(self, x: Tensor, i: Tensor, j: Tensor) -> Tensor:
        self.a[i] = x
        self.a[j] = x + 1
        self.b[j] = x * 2
        return self.a + self.b


@pytest.mark.parametrize("bad", [6, -7, 99])
def test_a_bad_index_leaves_the_state_as_it_was(bad: int) -> None:
    model = Several()
    good = (_random(3, 4, seed=1), torch.tensor([0, 2, 5]), torch.tensor([1, 2, 3]))
    program = _lower(model, good)
    assert _copies(program) == 0
    _check(program, model, [good])
    with pytest.raises(RuntimeError, match="an index is outside of the tensor"):
        program(_random(3, 4, seed=2), torch.tensor([0, 1, bad]), torch.tensor([1, 2, 3]))
    with pytest.raises(RuntimeError, match="an index is outside of the tensor"):
        program(_random(3, 4, seed=4), torch.tensor([0, 1, 1]), torch.tensor([bad, 2, 3]))
    _check(program, model, [(_random(3, 4, seed=3), torch.tensor([4, 4, 4]), good[2])])


class Store(nn.Module):
    def __init__(self, room: int) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, room, 16))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        self.cache[:, :, places] = x
        return self.cache[:, :, 0] + x[:, :, 0]


def test_the_price_of_an_update_is_that_of_what_it_writes() -> None:
    estimates = GgmlDelegate().estimates
    prices = {}
    for room in (64, 4096):
        inputs = (_random(1, 2, 1, 16, seed=0), torch.tensor([0]))
        program = export(Store(room), inputs).run_decompositions({})
        (put,) = (node for node in program.graph.nodes if "index_put" in node.name)
        prices[room] = estimate_ns([put], estimates, 1)
        whole = estimate_ns([put], replace(estimates, updates_in_place=False), 1)
        assert whole > prices[room]
    assert prices[64] == prices[4096]


def test_nothing_but_the_buffer_grows_with_the_cache() -> None:
    """No kernel copies it, and no memory is planned for a second one."""
    planned = {}
    for room in (64, 1024):
        program = _lower(Store(room), (_random(1, 2, 1, 16, seed=0), torch.tensor([0])))
        assert not _kernels(program)
        planned[room] = sum(_plan(program, "forward").non_const_buffer_sizes)
    cache = 2 * 16 * 4
    assert planned[1024] - planned[64] == (1024 - 64) * cache
