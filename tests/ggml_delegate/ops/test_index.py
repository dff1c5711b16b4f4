"""Indexing by tensors, writing by tensors, and gather on ggml equal eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.native import ExecuTorchError
from orchestrator.native import NativeProgram as Native
from tests.harness.ops import check_op, lower_ggml

index_put = torch.ops.aten.index_put.default


def _input(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def _indices(*sizes: int, below: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-below, below, sizes, generator=generator)


def test_index_by_several_tensors() -> None:
    def function(x: Tensor, i: Tensor, j: Tensor, k: Tensor) -> list[Tensor]:
        y = x * 2
        return [
            y[i, j],
            y[:, j, k],
            y[i[:, None], j[None, :], k],
            y.transpose(0, 1)[j, i],
            (y > 0)[i, j],
        ]

    check_op(
        function,
        [_input(4, 5, 6), _indices(3, below=4), _indices(3, below=5), _indices(3, below=6)],
    )


PUTS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "rows": lambda x, v, i, j: index_put(x, [i], v[:, None, None].expand(3, 5, 6)),
    "inner": lambda x, v, i, j: index_put(x, [None, None, i], v),
    "middle": lambda x, v, i, j: index_put(x, [None, i], v[:, None]),
    "two": lambda x, v, i, j: index_put(x, [i, j], v.reshape(3, 1)),
    "number": lambda x, v, i, j: index_put(x, [None, i], v[0]),
    "transposed": lambda x, v, i, j: index_put(x.transpose(0, 1), [i], v[0]),
}


@pytest.mark.parametrize("name", PUTS)
def test_index_put(name: str) -> None:
    i, j = torch.tensor([3, 0, -2]), torch.tensor([1, 4, -1])
    check_op(
        lambda x, v, i, j: PUTS[name](x * 2, v + 1, i, j) - 1,
        [_input(4, 5, 6), _input(3, seed=1), i, j],
    )


def test_the_last_of_several_values_for_one_place_stays() -> None:
    check_op(
        lambda x, v, i: x.relu().index_put((i,), v),
        [_input(4, 3), _input(3, 3, seed=1), torch.tensor([2, 2, 2])],
    )


def test_gather_along_every_dimension() -> None:
    def function(x: Tensor, i: Tensor) -> list[Tensor]:
        y = x + 1
        return [
            y.gather(0, i[:3, :4, :5]),
            y.gather(1, i),
            y.gather(-1, i[:2, :3, :6]),
            y.transpose(0, 2).gather(1, i.transpose(0, 2)[:6, :, :4]),
            (y > 0).gather(1, i),
        ]

    i = torch.randint(0, 4, (4, 9, 6), generator=torch.Generator().manual_seed(0))
    check_op(function, [_input(4, 5, 6), i])


def test_dynamic_sizes() -> None:
    n, t = Dim("n", min=1, max=6), Dim("t", min=2, max=30)
    inputs = [
        [_input(t, 5), torch.randperm(n) % t, torch.arange(n) % 5]
        for t, n in ((7, 3), (2, 1), (30, 6))
    ]
    check_op(
        lambda x, i, j: (x.relu()[i, j], (x * 2).gather(0, i[:, None])),
        inputs[0],
        dynamic_shapes={"args": ({0: t}, {0: n}, {0: n})},
        more_inputs=inputs[1:],
    )


REFUSED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "apart": (lambda x, i: x.relu()[i, :, i], "not neighbours"),
    "accumulated": (
        lambda x, i: x.relu().index_put((i,), x[:2], accumulate=True),
        "accumulates",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_still_equals_eager(name: str) -> None:
    function, reason = REFUSED[name]
    inputs = [_input(4, 5, 6), torch.tensor([1, 2])]
    check_op(function, inputs, delegated=False, reason=reason)


OUTSIDE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index": lambda x, i: (x * 2)[i, i],
    "index_put": lambda x, i: (x * 2).index_put((i, i), x[0, :2]),
    "gather": lambda x, i: (x * 2).gather(0, i.reshape(2, 1)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_outside_is_an_error(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor, i: Tensor) -> Tensor:
            return OUTSIDE[name](x, i)

    program, recorder, _ = lower_ggml(Model(), [_input(4, 5), torch.tensor([1, 2])])
    assert not recorder.reasons
    native = Native(program.buffer)
    native.run("forward", [_input(4, 5), torch.tensor([3, 0])])
    for wrong in (4, 5, -6):
        with pytest.raises(ExecuTorchError, match="index"):
            native.run("forward", [_input(4, 5), torch.tensor([1, wrong])])
