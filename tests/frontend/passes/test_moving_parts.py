"""Parts of tensors at a place that the caller gives as a number in a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from orchestrator import LoweredProgram, lower
from orchestrator.frontend.passes import place_moving_parts

ROOM = 12


class Model(nn.Module):
    """A table that is read, and a cache that is written, from a place on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        drawn = torch.Generator().manual_seed(5)
        self.register_buffer("table", torch.randn(ROOM, 4, generator=drawn))
        self.register_buffer("cache", torch.zeros(2, ROOM, 4))

    def forward(self, x: Tensor, place: Tensor) -> Any:
        start = place[-1].item()
        torch._check(start >= 0)
        torch._check(start + x.shape[1] <= ROOM)
        return self.function(self, x, start)


def _narrow(model: Any, x: Tensor, start: Any) -> Tensor:
    return x + model.table.narrow(0, start, x.shape[1])


def _slice(model: Any, x: Tensor, start: Any) -> Tensor:
    return x + model.table[start : start + x.shape[1]]


def _row(model: Any, x: Tensor, start: Any) -> Tensor:
    return x + model.table[start]


def _column_of_a_view(model: Any, x: Tensor, start: Any) -> Tensor:
    turned = model.table.t()
    return x.sum(1) + turned[:, start]


def _write_narrowed(model: Any, x: Tensor, start: Any) -> Tensor:
    model.cache.narrow(1, start, x.shape[1]).copy_(x * 2)
    result: Tensor = model.cache.sum(1)
    return result


def _write_slice(model: Any, x: Tensor, start: Any) -> Tensor:
    model.cache[:, start : start + x.shape[1]] = x * 2
    result: Tensor = model.cache.cumsum(1)
    return result


def _write_one(model: Any, x: Tensor, start: Any) -> Tensor:
    model.cache.select(1, start).copy_(x[:, -1])
    result: Tensor = model.cache.cumsum(1)
    return result


def _places(model: Any, x: Tensor, start: Any) -> Tensor:
    model.cache[:, torch.arange(x.shape[1]) + start] = x
    seen = torch.arange(ROOM) < start + x.shape[1]
    return torch.where(seen[:, None], model.cache, -1.0)


CASES = {
    each.__name__.strip("_"): each
    for each in (
        _narrow,
        _slice,
        _row,
        _column_of_a_view,
        _write_narrowed,
        _write_slice,
        _write_one,
        _places,
    )
}


def _export(function: Callable[..., Any], dynamic: bool = False) -> ExportedProgram:
    shapes = ({1: Dim("n", min=1, max=6)}, None) if dynamic else None
    return export(Model(function), (torch.randn(2, 3, 4), torch.tensor([0])), dynamic_shapes=shapes)


def _kernels(program: LoweredProgram) -> set[str]:
    plans = deserialize_pte_binary(program.buffer).program.execution_plan
    return {operator.name for plan in plans for operator in plan.operators}


@pytest.mark.parametrize("backends", [["ggml"], ["xnnpack"]], ids="+".join)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_results_equal_eager(name: str, dynamic: bool, backends: list[str]) -> None:
    program = lower(_export(CASES[name], dynamic), backends=backends, tune="off", strategy="greedy")
    if backends == ["ggml"]:
        # None that reads or writes a table or a cache.
        assert _kernels(program) <= {"aten::sym_size", "aten::add", "aten::full"}
    eager = Model(CASES[name])
    counts = [(3, 0), (1, 3), (6, 4), (2, 10)] if dynamic else [(3, 0), (3, 5), (3, 9), (3, 1)]
    for count, start in counts:
        call = (torch.randn(2, count, 4), torch.tensor([start]))
        torch.testing.assert_close(program(*call), eager(*call))


@pytest.mark.parametrize("start", [-1, ROOM - 2, 2**31])
def test_places_outside_are_errors(start: int) -> None:
    for function in (_slice, _write_slice):
        program = lower(_export(function), backends=["xnnpack"], tune="off")
        with pytest.raises(RuntimeError, match=r"(?i)index|indices|out"):
            program(torch.randn(2, 3, 4), torch.tensor([start]))


def _read_before_a_write(model: Any, x: Tensor, start: Any) -> Tensor:
    part = model.cache.narrow(1, start, x.shape[1])
    model.cache.add_(1)
    result: Tensor = part + x
    return result


def _added_to(model: Any, x: Tensor, start: Any) -> Tensor:
    model.cache.narrow(1, start, x.shape[1]).add_(x)
    return model.cache + 1


@pytest.mark.parametrize("function", [_read_before_a_write, _added_to])
def test_views_of_what_is_written_otherwise_stay(function: Callable[..., Any]) -> None:
    program = _export(function)
    assert place_moving_parts(program) is program


def test_places_that_may_count_from_the_end_stay() -> None:
    class Either(nn.Module):
        def forward(self, x: Tensor, place: Tensor) -> Tensor:
            start = place.item()
            torch._check(start >= -3)
            torch._check(start < 3)
            return torch.arange(3) + start + x.to(torch.int64)

    program = export(Either(), (torch.ones(3), torch.tensor(1)))
    assert place_moving_parts(program) is program
    lowered = lower(program, backends=["ggml"], tune="off")
    for start in (-2, 2):
        call = (torch.ones(3), torch.tensor(start))
        assert torch.equal(lowered(*call), Either()(*call))
