"""Whatever a file says of a recurrent layer, running it ends in an error, never in a crash."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ggml_delegate import ir
from orchestrator.native import NativeProgram
from tests.harness.changeable import ChangeableFile, changeable_file


class _Model(nn.Module):
    """One layer of each kind of cell; the states that they start from are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 20, bidirectional=True, proj_size=17)
        self.gru = nn.GRU(6, 20, bidirectional=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        return self.lstm(x, (h[:, :, :17] * 2, c * 2)), self.gru(x, c + 1)


def _inputs() -> list[Tensor]:
    return [torch.randn(3, 2, 6), torch.randn(2, 2, 20), torch.randn(2, 2, 20)]


@functools.cache
def _file() -> ChangeableFile:
    return changeable_file(_Model(), _inputs())


def _run(mutate: Callable[[Any], object]) -> list[Any]:
    program = _file().program()
    mutate(program)
    return NativeProgram(_file().with_program(program)).run("forward", _inputs())


def _node(program: Any, kind: int) -> Any:
    """The Recurrent of a kind."""
    nodes = [node for node in program.nodes if ir.op_name(node) == "Recurrent"]
    return next(node for node in nodes if node.op.kind == kind)


_lstm = functools.partial(_node, kind=ir.RecurrentKind.Lstm)
_gru = functools.partial(_node, kind=ir.RecurrentKind.Gru)
_GATES, _WEIGHT, _HIDDEN, _CELL, _PROJECTION, _BIAS = range(6)


def _resize(program: Any, tensor: int, dims: list[int]) -> None:
    program.tensors[tensor].dims = [ir.Dim(value=size, expr=-1) for size in dims]


def _move(node: Any, to: int, source: int) -> None:
    """Input `to` becomes the tensor that is input `source`."""
    node.inputs[to] = node.inputs[source]


MUTATIONS: dict[str, Callable[[Any], object]] = {
    "an unknown kind": lambda p: setattr(_lstm(p).op, "kind", 77),
    "another kind": lambda p: setattr(_lstm(p).op, "kind", ir.RecurrentKind.Gru),
    "a kind with fewer gates": lambda p: setattr(_gru(p).op, "kind", ir.RecurrentKind.RnnTanh),
    "no inputs": lambda p: setattr(_lstm(p), "inputs", []),
    "no gates": lambda p: _lstm(p).inputs.__setitem__(_GATES, -1),
    "no weight": lambda p: _lstm(p).inputs.__setitem__(_WEIGHT, -1),
    "no hidden state": lambda p: _gru(p).inputs.__setitem__(_HIDDEN, -1),
    "no cell state": lambda p: _lstm(p).inputs.__setitem__(_CELL, -1),
    "no projection where one is needed": lambda p: _lstm(p).inputs.__setitem__(_PROJECTION, -1),
    "too many inputs": lambda p: _lstm(p).inputs.append(-1),
    "a cell state that no cell takes": lambda p: _move(_gru(p), _CELL, _HIDDEN),
    "a projection that no cell takes": lambda p: _move(_gru(p), _PROJECTION, _WEIGHT),
    "a bias that no cell takes": lambda p: _move(_lstm(p), _BIAS, _PROJECTION),
    "a bias of other sizes": lambda p: _move(_gru(p), _BIAS, _HIDDEN),
    "another layer's weight": lambda p: _lstm(p).inputs.__setitem__(
        _WEIGHT, _gru(p).inputs[_WEIGHT]
    ),
    "a weight that is no weight": lambda p: _move(_lstm(p), _WEIGHT, _GATES),
    "a projection that is none": lambda p: _move(_lstm(p), _PROJECTION, _WEIGHT),
    "gates that are none": lambda p: _move(_gru(p), _GATES, _HIDDEN),
    "gates of another layer": lambda p: _gru(p).inputs.__setitem__(_GATES, _lstm(p).inputs[_GATES]),
    "states the wrong way round": lambda p: setattr(
        _lstm(p), "inputs", [_lstm(p).inputs[i] for i in (0, 1, 3, 2, 4, 5)]
    ),
    "a hidden state of rank 2": lambda p: _resize(p, p.inputs[1], [4, 20]),
    "no output": lambda p: setattr(_lstm(p), "outputs", []),
    "two outputs of three": lambda p: _lstm(p).outputs.pop(),
    "three outputs of two": lambda p: (
        p.tensors.append(p.tensors[_gru(p).outputs[1]]),
        _gru(p).outputs.append(len(p.tensors) - 1),
    ),
    "four outputs": lambda p: (
        p.tensors.append(p.tensors[_lstm(p).outputs[1]]),
        _lstm(p).outputs.append(len(p.tensors) - 1),
    ),
    "an output twice": lambda p: _gru(p).outputs.__setitem__(1, _gru(p).outputs[0]),
    "an output that is defined already": lambda p: _gru(p).outputs.__setitem__(
        1, _lstm(p).outputs[1]
    ),
    "an output out of range": lambda p: _gru(p).outputs.__setitem__(1, 1_000_000),
    "a scalar output": lambda p: (
        setattr(p.tensors[_lstm(p).outputs[1]], "isScalar", True),
        _resize(p, _lstm(p).outputs[1], []),
    ),
    "hidden states of other sizes": lambda p: _resize(p, _lstm(p).outputs[0], [3, 2, 35]),
    "a last state of other sizes": lambda p: _resize(p, _lstm(p).outputs[1], [2, 2, 18]),
    "a last cell state of other sizes": lambda p: _resize(p, _lstm(p).outputs[2], [2, 20, 2]),
    "a last state that is an integer": lambda p: setattr(
        p.tensors[_lstm(p).outputs[1]], "dtype", ir.DType.Int32
    ),
}


def test_the_unchanged_program_runs() -> None:
    assert len(_run(lambda program: None)) == 5


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_wrong_recurrent_layer_is_an_error(mutation: Callable[[Any], object]) -> None:
    with pytest.raises(RuntimeError) as error:
        _run(mutation)
    assert "GGML_ASSERT" not in str(error.value)
