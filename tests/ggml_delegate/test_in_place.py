"""Results that may have an input's memory: which are declared, and what the runtime makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ggml_delegate import ir, preprocess
from ggml_delegate.in_place import in_place_results
from orchestrator.native import NativeProgram
from tests.harness.ops import lower_ggml
from tests.harness.pte import Function

index_put = torch.ops.aten.index_put.default
X, V, PLACES = torch.arange(12.0).reshape(4, 3), -torch.ones(2, 3), torch.tensor([2, 0])


def _declared(
    function: Callable[..., Any], inputs: tuple[Tensor, ...] = (X, V, PLACES)
) -> list[Any]:
    """The pairs (result, argument) by delegate call."""
    _, _, edge = lower_ggml(Function(function), inputs)
    modules = edge.exported_program().graph_module.children()
    return [in_place_results(module.processed_bytes) for module in modules]


DECLARED: dict[str, tuple[Callable[..., Any], dict[int, int]]] = {
    "an update": (lambda x, v, i: index_put(x, [i], v), {0: 0}),
    "two in a row": (lambda x, v, i: index_put(index_put(x, [i], v), [i + 1], v * 2), {0: 0}),
    "read afterwards": (lambda x, v, i: ((y := index_put(x, [i], v)), y + 1), {0: 0}),
    "updated twice": (lambda x, v, i: (index_put(x, [i], v), index_put(x, [i], v * 2)), {}),
    "read before": (lambda x, v, i: (index_put(x, [i], v), x.exp()), {}),
    "of itself": (lambda x, v, i: index_put(x, [i], x[:2]), {}),
    "of a computed tensor": (lambda x, v, i: index_put(x * 2, [i], v), {}),
    "not returned": (lambda x, v, i: index_put(x, [i], v) + 1, {}),
    "another op": (lambda x, v, i: x + v.sum() + i.sum(), {}),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared(name: str) -> None:
    function, expected = DECLARED[name]
    assert _declared(function) == [expected]


def test_two_inputs_apart_from_each_other() -> None:
    def both(x: Tensor, y: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        return v * 2, index_put(y, [i], v), index_put(x, [i], v)

    # Arguments come in the order in which the nodes read them.
    assert _declared(both, (X, X + 1, V, PLACES)) == [{1: 1, 2: 3}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECLARED)
def test_results_that_lie_elsewhere_are_changed_copies(name: str, dtype: torch.dtype) -> None:
    function, _ = DECLARED[name]
    inputs = (X.to(dtype, copy=True), V.to(dtype), PLACES)
    before = [each.clone() for each in inputs]
    program, _, _ = lower_ggml(Function(function), inputs)
    native = NativeProgram(program.buffer)
    for _ in range(2):
        expected = function(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for actual, wanted in zip(native.run("forward", list(inputs)), expected, strict=True):
            torch.testing.assert_close(actual, wanted)
    torch.testing.assert_close(inputs, tuple(before))


Y = 4  # the number of the argument y, which is read last but for v


class _Chain(nn.Module):
    """Two updates of x in a row, an op on the result, an update of y, and an op on v."""

    def forward(self, x: Tensor, y: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        x = index_put(index_put(x, [i], v), [i + 1], v * 2)
        return x, x + 1, index_put(y, [i], v), v.exp()


def _mutated(monkeypatch: pytest.MonkeyPatch, mutate: Callable[[Any], Any]) -> NativeProgram:
    serialize = ir.serialize

    def patched(program: Any) -> bytes:
        mutate(program)
        return serialize(program)

    monkeypatch.setattr(preprocess.ir, "serialize", patched)
    program, _, _ = lower_ggml(_Chain(), (X, X + 1, V, PLACES))
    return NativeProgram(program.buffer)


def _run(native: NativeProgram) -> list[Any]:
    return native.run("forward", [X, X + 1, V, PLACES])


def test_the_unchanged_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[int, int]] = []

    def note(program: Any) -> None:
        pairs.extend((pair.input, pair.output) for pair in program.inPlace)

    native = _mutated(monkeypatch, note)
    assert pairs == [(0, 0), (Y, 2)]
    torch.testing.assert_close(_run(native), list(_Chain()(X, X + 1, V, PLACES)))


def _pair(program: Any, place: int, **values: int) -> None:
    for name, value in values.items():
        setattr(program.inPlace[place], name, value)


def _puts(program: Any) -> list[Any]:
    return [node for node in program.nodes if ir.op_name(node) == "IndexPut"]


def _tensor(program: Any, number: int) -> Any:
    return program.tensors[number]


MALFORMED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "input out of range": (
        lambda p: _pair(p, 0, input=99),
        "in-place update 0 names an input or output that the program lacks",
    ),
    "output out of range": (
        lambda p: _pair(p, 1, output=4),
        "in-place update 1 names an input or output that the program lacks",
    ),
    "one input twice": (
        lambda p: _pair(p, 1, input=0),
        "in-place update 1 names an input or output that another one has",
    ),
    "one output twice": (
        lambda p: _pair(p, 1, output=0),
        "in-place update 1 names an input or output that another one has",
    ),
    "another input's update": (
        lambda p: (_pair(p, 0, output=2), _pair(p, 1, output=0)),
        "output 2 cannot have the memory of input 0",
    ),
    "an input that several nodes read": (
        lambda p: _pair(p, 0, input=2),
        r"output 0 cannot have the memory of input 2: the update of tensor \d+ is not all that "
        "reads it",
    ),
    "the result of another op": (
        lambda p: _pair(p, 1, output=1),
        f"output 1 cannot have the memory of input {Y}",
    ),
    "an input handed back": (
        lambda p: p.outputs.__setitem__(2, p.inputs[Y]),
        f"output 2 is input {Y} and cannot be its new value",
    ),
    "a tensor between that is read besides": (
        lambda p: p.nodes[-1].inputs.__setitem__(0, _puts(p)[0].outputs[0]),
        "is not all that reads it",
    ),
    "a tensor between that is a result": (
        lambda p: p.outputs.__setitem__(3, _puts(p)[0].outputs[0]),
        "is not all that reads it",
    ),
    "another dtype": (
        lambda p: setattr(_tensor(p, _puts(p)[0].outputs[0]), "dtype", ir.DType.BFloat16),
        "has another dtype or dim order",
    ),
    "another dim order": (
        lambda p: setattr(_tensor(p, p.inputs[Y]), "dimOrder", [1, 0]),
        "has another dtype or dim order",
    ),
    "no sizes": (lambda p: setattr(_tensor(p, p.inputs[Y]), "dims", []), "."),
    "the tensor as its own rows": (
        lambda p: _puts(p)[-1].inputs.__setitem__(1, p.inputs[Y]),
        "is not all that reads it",
    ),
    "the tensor as something else": (
        lambda p: _puts(p)[-1].inputs.reverse(),
        "does not update tensor",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_wrong_declaration_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mutate, message = MALFORMED[name]
    with pytest.raises(RuntimeError, match=message):
        _run(_mutated(monkeypatch, mutate))


def test_without_declarations_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    native = _mutated(monkeypatch, lambda program: setattr(program, "inPlace", None))
    torch.testing.assert_close(_run(native), list(_Chain()(X, X + 1, V, PLACES)))


class _Halves(nn.Module):
    """A cache of rows that are as large as the weight of a layer is in panels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(3, 6, 16))
        self.linear = nn.Linear(6, 16, bias=False)

    def forward(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        self.rows[i] = v
        return self.rows * 1.0, self.linear(x)


def test_a_constant_of_a_half_type_is_put_as_the_numbers_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What writes into the state took it for floats, and read as much again behind it."""
    serialize = ir.serialize

    def put_the_weight(program: Any) -> bytes:
        (put,) = _puts(program)
        (linear,) = (node for node in program.nodes if ir.op_name(node) == "Linear")
        put.inputs[1] = linear.inputs[1]
        assert _tensor(program, put.inputs[1]).dtype == ir.DType.BFloat16
        return serialize(program)

    monkeypatch.setattr(preprocess.ir, "serialize", put_the_weight)
    model = _Halves().bfloat16().eval()
    inputs = (torch.ones(1, 6).bfloat16(), torch.ones(1, 6, 16).bfloat16(), torch.tensor([1]))
    program, _, _ = lower_ggml(model, inputs)
    rows = torch.as_tensor(NativeProgram(program.buffer).run("forward", list(inputs))[0])
    assert torch.equal(rows[1], model.linear.weight.detach().T)
    assert not rows[::2].any()
