"""ExecuTorch's ops for key-value caches, lowered with and without ggml."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  # registers the ops
from torch import Tensor, nn
from torch.export import Dim, export

from orchestrator import LoweredProgram, lower
from orchestrator.frontend.passes import write_out_cache_ops
from orchestrator.frontend.torch_speed import repeated_work_spared

llama: Any = torch.ops.llama
BACKENDS = [["ggml"], ["xnnpack"], ["ggml", "xnnpack"]]
ROOM, DEPTH = 24, 8


class Attention(nn.Module):
    """Attention over caches that each call adds rows to, as ExecuTorch's export for LLMs has it."""

    def __init__(
        self,
        batch: int = 1,
        groups: int = 2,
        layers: int = 1,
        room: int = ROOM,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.layers = layers
        for name in [f"cached_{each}{i}" for i in range(layers) for each in "kv"]:
            self.register_buffer(name, torch.zeros(batch, room, groups, DEPTH, dtype=dtype))

    def cached(self, i: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"cached_k{i}"), getattr(self, f"cached_v{i}")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
        for i in range(self.layers):
            keys, values = self.cached(i)
            llama.update_cache(k * (i + 1), keys, places[0].item())
            llama.update_cache(v + i, values, places[0].item())
            q = llama.custom_sdpa(q, keys, values, places[0].item(), None, 0, True) * 1.5
        return q


def _inputs(
    count: int, start: int, batch: int = 1, groups: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    drawn = torch.Generator().manual_seed(1000 * count + start)
    heads = (4, groups, groups)
    rows = [torch.randn(batch, count, n, DEPTH, generator=drawn).to(dtype) for n in heads]
    return (*rows, torch.arange(start, start + count))


def _lower(model: nn.Module, inputs: Sequence[Any], **options: Any) -> LoweredProgram:
    options = {"tune": "off", "strategy": "greedy", **options}
    return lower(copy.deepcopy(model).eval(), tuple(inputs), **options)


def _check(
    program: LoweredProgram, model: nn.Module, calls: Sequence[Sequence[Any]], tolerance: float
) -> None:
    eager = copy.deepcopy(model)
    for call in calls:
        expected, actual = eager(*call), program(*call)
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def _kernels(program: LoweredProgram) -> list[str]:
    plans = deserialize_pte_binary(program.buffer).program.execution_plan
    return [operator.name for plan in plans for operator in plan.operators]


@pytest.mark.parametrize("backends", BACKENDS, ids="+".join)
@pytest.mark.parametrize(("batch", "groups", "layers"), [(1, 2, 3), (3, 4, 1), (2, 1, 1)])
def test_decoding_row_by_row(backends: list[str], batch: int, groups: int, layers: int) -> None:
    model = Attention(batch, groups, layers)
    program = _lower(model, _inputs(1, 0, batch, groups), backends=backends)
    if backends == ["ggml"]:
        assert not _kernels(program)  # and so no copies of caches
    calls = [_inputs(1, start, batch, groups) for start in (*range(ROOM), 7, 0)]
    _check(program, model, calls, 1e-5)


@pytest.mark.parametrize("backends", BACKENDS, ids="+".join)
def test_dynamic_counts_of_rows(backends: list[str]) -> None:
    batch = 2
    model, n = Attention(batch, layers=2), Dim("n", min=1, max=16)
    shapes = ({1: n}, {1: n}, {1: n}, {0: n})
    program = _lower(model, _inputs(4, 0, batch), backends=backends, dynamic_shapes=shapes)
    assert "aten::copy_" not in _kernels(program) or "ggml" not in backends
    calls = [_inputs(*each, batch) for each in ((3, 0), (1, 3), (12, 4), (1, 16), (7, 17), (5, 2))]
    _check(program, model, calls, 1e-5)


@pytest.mark.parametrize("backends", BACKENDS, ids="+".join)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(backends: list[str], dtype: torch.dtype) -> None:
    model = Attention(dtype=dtype)
    program = _lower(model, _inputs(2, 0, dtype=dtype), backends=backends)
    calls = [_inputs(2, start, dtype=dtype) for start in (0, 2, 4, 20)]
    _check(program, model, calls, 2e-2 if dtype == torch.bfloat16 else 3e-3)


def test_methods_share_caches() -> None:
    model = Attention(layers=2)
    programs = {
        name: export(model, _inputs(count, 0)) for name, count in (("prefill", 6), ("decode", 1))
    }
    program = lower(programs, backends=["ggml"], tune="off", strategy="greedy")
    eager = copy.deepcopy(model)
    for method, call in [
        ("prefill", _inputs(6, 0)),
        *(("decode", _inputs(1, 6 + i)) for i in range(3)),
        ("prefill", _inputs(6, 9)),
        ("decode", _inputs(1, 15)),
    ]:
        torch.testing.assert_close(program(*call, method=method), eager(*call))


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("cache", torch.zeros(2, 10, 2, DEPTH))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.cache, *inputs)


def _attend(**options: Any) -> Callable[..., Tensor]:
    def attend(cache: Tensor, q: Tensor, rows: Tensor, place: Tensor) -> Tensor:
        start = options.get("start", place)
        llama.update_cache(rows, cache, start if isinstance(start, int) else start.item())
        start = start if isinstance(start, int) else place.item() - options.get("back", 0)
        causal, scale = options.get("causal", True), options.get("scale")
        result: Tensor = llama.custom_sdpa(q, cache, cache * 2, start, None, 0, causal, scale)
        return result

    return attend


def _masked(cache: Tensor, q: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    llama.update_cache(rows, cache, place.item())
    seen = torch.arange(10) <= place + torch.arange(3)[:, None]
    mask = torch.where(seen, 0.25 * torch.arange(10), -torch.inf)
    result: Tensor = llama.custom_sdpa(q, cache, cache * 2, 0, mask, 0, False)
    return result


def _at_once(cache: Tensor, q: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    start = place.item()
    torch._check(start >= 0)
    values = cache * 2
    result: Tensor = llama.sdpa_with_kv_cache(
        q, rows, rows + 1, cache, values, start, 3, None, 0, True
    )
    return result + values.sum()


def _changed_between(cache: Tensor, q: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    """The number that was read counts, not what its tensor holds later."""
    counter = place + 1
    start = counter.item()
    counter.add_(2)
    llama.update_cache(rows, cache, start)
    return cache.sum(0) + counter


def _no_cache(cache: Tensor, q: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    result: Tensor = llama.custom_sdpa(q, rows, rows + place, 0, None, 0, True)
    return result


CASES: dict[str, Callable[..., Tensor]] = {
    "causal": _attend(),
    "not causal": _attend(causal=False),
    "scale": _attend(scale=0.7),
    "fixed start": _attend(start=4),
    "from 0": _attend(start=0),
    "computed start": _attend(back=-1, causal=False),
    "mask": _masked,
    "at once": _at_once,
    "changed between": _changed_between,
    "no cache": _no_cache,
}


@pytest.mark.parametrize(
    ("backends", "functional"), [*((each, False) for each in BACKENDS), (["ggml"], True)]
)
@pytest.mark.parametrize("name", CASES)
def test_ways_to_call_them(backends: list[str], name: str, functional: bool) -> None:
    model = Function(CASES[name])
    calls = [
        (torch.randn(2, 3, 4, DEPTH), torch.randn(2, 3, 2, DEPTH), torch.tensor(start))
        for start in (0, 3, 5, 6, 1)
    ]
    with repeated_work_spared():
        program = export(copy.deepcopy(model), calls[0])
        if functional:
            program = program.run_decompositions({})
    lowered = lower(program, backends=backends, tune="off", strategy="greedy")
    _check(lowered, model, calls, 1e-5)


def _scattered(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    llama.update_cache_with_indices(rows, cache, 0, places)
    return cache + 1


@pytest.mark.parametrize("backends", BACKENDS, ids="+".join)
def test_rows_with_numbers(backends: list[str]) -> None:
    model = Function(_scattered)
    calls = [
        (torch.randn(2, 3, 2, DEPTH), torch.tensor(places))
        for places in ([[0, 4, 9], [1, 2, 3]], [[9, 8, 0], [4, 0, 9]])
    ]
    program = _lower(model, calls[0], backends=backends)
    _check(program, model, calls, 0)
    for places in ([[0, 1, 10], [1, 2, 3]], [[0, 1, 2], [1, -1, 3]]):
        with pytest.raises(RuntimeError, match=r"(?i)index .* out"):
            program(calls[0][0], torch.tensor(places))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.float64])
def test_quantized_caches(dtype: torch.dtype) -> None:
    """As ExecuTorch's QuantizedKVCache has them: integers, and scales beside them."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(1, 6, 2, 4, dtype=dtype))

        def forward(self, x: Tensor, place: Tensor) -> Tensor:
            llama.update_cache(x, self.cache, place.item())
            return self.cache + 1

    calls = [(torch.arange(8).reshape(1, 1, 2, 4).to(dtype) + i, torch.tensor(i)) for i in range(6)]
    model = Model()
    program = _lower(model, calls[0], backends=["ggml", "xnnpack"])
    _check(program, model, calls, 0)


@pytest.mark.parametrize("backends", BACKENDS, ids="+".join)
@pytest.mark.parametrize("start", [ROOM - 1, -1, -(2**31), 2**31 - 2])
def test_positions_outside_leave_the_caches_as_they_were(backends: list[str], start: int) -> None:
    model = Attention()
    program = _lower(model, _inputs(2, 0), backends=backends)
    eager = copy.deepcopy(model)
    for call in (_inputs(2, 0), _inputs(2, 2)):
        torch.testing.assert_close(program(*call), eager(*call))
    with pytest.raises(RuntimeError, match=r"(?i)index .* out"):
        program(*_inputs(2, start))
    call = _inputs(2, 4)
    torch.testing.assert_close(program(*call), eager(*call))


def test_a_mask_and_causal_at_once_is_no_attention() -> None:
    """An error in eager mode, too."""
    mask = torch.zeros(3, 10)
    model = Function(lambda cache, q: llama.custom_sdpa(q, cache + 1, cache + 2, 0, mask, 0, True))
    program = export(model, (torch.randn(2, 3, 4, DEPTH),))
    assert write_out_cache_ops(program) is program


def test_other_programs_are_left_alone() -> None:
    program = export(Function(lambda cache, x: cache + x), (torch.randn(DEPTH),))
    assert write_out_cache_ops(program) is program


def test_layers_share_positions_and_mask() -> None:
    counts = []
    for layers in (1, 4):
        program = write_out_cache_ops(export(Attention(layers=layers), _inputs(3, 0)))
        names = [str(node.target) for node in program.graph.nodes]
        counts.append([names.count(f"aten.{name}") for name in ("le.Tensor", "masked_fill.Scalar")])
        assert "aten.item.default" not in names
        assert not any("llama" in name for name in names)
    assert counts == [[1, 1], [1, 1]]
