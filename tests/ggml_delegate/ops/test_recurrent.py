"""LSTM, GRU and simple RNNs on ggml equal eager, whole: in any form, over any number of steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from ggml_delegate.node_view import Constants
from ggml_delegate.recurrent_ops import RecurrentLayersPreserved
from ggml_delegate.registry import check_node
from orchestrator import ModelError, lower
from orchestrator.native import NativeProgram
from tests.harness.compare import assert_close_to_eager
from tests.harness.ops import check_op, lower_ggml, outputs_of, relative_error

KINDS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs),
}


@dataclass(frozen=True)
class Form:
    """One layer stack and what it is given; `reads`: all results, the first or the last states."""

    layers: int = 1
    bidirectional: bool = False
    batch_first: bool = False
    bias: bool = True
    state: bool = False
    batch: int = 2
    steps: int = 5
    features: int = 8
    hidden: int = 16
    projected: int = 0
    reads: str = "all"

    def inputs(self, seed: int) -> list[Tensor]:
        """The sequence, and the initial states where they are given."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [self.steps, self.batch, self.features]
        if self.batch_first:
            sizes[:2] = sizes[1::-1]
        found = [sizes]
        if self.state:
            count = self.layers * (2 if self.bidirectional else 1)
            found += [[count, self.batch, self.projected or self.hidden]]
            found += [[count, self.batch, self.hidden]]
        return [torch.randn(each, generator=generator) for each in found]


class Stack(nn.Module):
    """The layers of one form, with weights that no default has."""

    def __init__(self, kind: str, form: Form) -> None:
        super().__init__()
        projection = {"proj_size": form.projected} if form.projected and kind == "lstm" else {}
        self.layers = KINDS[kind](
            form.features,
            form.hidden,
            form.layers,
            bias=form.bias,
            batch_first=form.batch_first,
            bidirectional=form.bidirectional,
            **projection,
        )
        self.form = form
        self.inputs = len(inputs_for(kind, form, 0))

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        """x of [steps, batch, features] or, batch_first, [batch, steps, features]."""
        given = {"": None, "LSTM": tuple(states)}.get(type(self.layers).__name__ if states else "")
        hx = states[0] if states and given is None else given
        sequence, last = self.layers(x, hx)
        return {"all": (sequence, last), "sequence": sequence, "last": last}[self.form.reads]


class Stacks(nn.Module):
    """Many forms side by side: exporting and lowering cost more than the forms do."""

    def __init__(self, kind: str, forms: Sequence[Form]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Stack(kind, form) for form in forms)

    def forward(self, *inputs: Tensor) -> list[Any]:
        """The inputs of all forms, one after the other."""
        left = iter(inputs)
        return [part(*itertools.islice(left, part.inputs)) for part in self.parts]


def forms(kind: str) -> list[Form]:
    """Every combination of what is yes or no, over sizes that take turns."""
    units = [5, 16, 17, 40, 1] if kind != "relu" else [5, 16, 17, 40, 24]
    turns = zip(
        itertools.cycle([2, 1, 5]),
        itertools.cycle([5, 1, 2, 7]),
        itertools.cycle([8, 1, 19, 16, 3]),
        itertools.cycle(units),
        itertools.cycle([0, 3, 0, 16]),
        itertools.cycle(["all", "sequence", "last", "all", "all"]),
        strict=False,
    )
    flags = itertools.product((1, 2), *[(False, True)] * 4)
    found = [
        Form(layers, *rest, batch, steps, features, hidden, projected, reads)
        for (layers, *rest), (batch, steps, features, hidden, projected, reads) in zip(
            flags, turns, strict=False
        )
    ]
    if kind != "lstm":
        found = [Form(**{**vars(form), "projected": 0}) for form in found]
    small = [f for f in found if f.projected >= f.hidden]
    return [Form(**{**vars(f), "hidden": f.projected + 4}) if f in small else f for f in found]


def inputs_for(kind: str, form: Form, seed: int) -> list[Tensor]:
    """The inputs of one form; only an LSTM has cell states."""
    given = form.inputs(seed)
    return given if kind == "lstm" else given[:2]


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_every_form(kind: str, part: int) -> None:
    torch.manual_seed(part)
    chosen = forms(kind)[part::2]
    check_op(
        Stacks(kind, chosen),
        [x for seed, form in enumerate(chosen) for x in inputs_for(kind, form, seed)],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_many_sequences_units_and_layers(kind: str) -> None:
    torch.manual_seed(0)
    form = Form(3, True, True, batch=33, steps=23, features=40, hidden=72)
    check_op(Stack(kind, form), inputs_for(kind, form, 0))


def test_sequences_that_lie_otherwise_in_memory() -> None:
    torch.manual_seed(0)
    lstm, gru = nn.LSTM(6, 16), nn.GRU(5, 16, batch_first=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru = lstm, gru

        def forward(self, x: Tensor) -> Any:
            y, _ = self.lstm(x.transpose(0, 1))
            z, last = self.gru(x.transpose(1, 2)[:, :, 1:6])
            return y.transpose(0, 1), z[:, -1], last, y.sum(0)

    check_op(Model(), [torch.randn(3, 7, 6)])


def test_states_handed_from_one_layer_to_another() -> None:
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.LSTM(6, 20, 2, batch_first=True)
            self.decoder = nn.LSTM(4, 20, 2, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            _, state = self.encoder(x)
            return self.decoder(y, (state[0] * 0.5, state[1]))

    check_op(Model(), [torch.randn(3, 7, 6), torch.randn(3, 5, 4)])


def test_one_sequence_without_a_batch() -> None:
    torch.manual_seed(0)
    check_op(nn.LSTM(6, 20, 2, bidirectional=True), [torch.randn(9, 6)])
    check_op(nn.GRU(6, 20, batch_first=True), [torch.randn(9, 6)])


def test_saturated_gates_and_values_that_are_not_finite() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, 8) * torch.tensor([1.0, 1e2, 1e4, 1e30]).view(4, 1)
    x[2, 0, 0], x[3, 1, 1] = float("nan"), float("inf")
    for kind in ("lstm", "gru", "tanh"):
        layer = KINDS[kind](8, 16).eval()
        program, recorder, _ = lower_ggml(layer, [x])
        assert not recorder.reasons
        with torch.no_grad():
            expected = layer(x)[0]
        assert expected.isnan().any()
        actual = NativeProgram(program.buffer).run("forward", [x])[0]
        assert relative_error(torch.as_tensor(actual), expected) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("ggml",)])
def test_dynamic_steps_and_batch(kind: str, backends: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    form = Form(2, True, True, features=6, hidden=20)
    model = nn.Sequential(Stack(kind, form)).eval()
    shapes = {"input": {0: Dim("batch", min=1, max=9), 1: Dim("steps", min=1, max=60)}}
    program = lower(model, (torch.randn(2, 5, 6),), backends=backends, dynamic_shapes=shapes)
    (segment,) = (each for each in program.report.methods[0].segments if each.is_delegate)
    assert segment.backend == "ggml"
    for sizes in ((2, 5, 6), (1, 1, 6), (9, 60, 6), (3, 17, 6)):
        x = torch.randn(sizes)
        with torch.no_grad():
            expected = outputs_of(model(x))
        for actual, wanted in zip(outputs_of(program(x)), expected, strict=True):
            assert relative_error(torch.as_tensor(actual), wanted) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_and_file_do_not_depend_on_the_number_of_steps(kind: str) -> None:
    torch.manual_seed(0)
    model = Stack(kind, Form(2, True, True, features=6, hidden=20)).eval()
    few, many = (lower(model, (torch.randn(2, steps, 6),)) for steps in (20, 200))

    def nodes(program: Any) -> list[tuple[str, int]]:
        return [(s.backend, len(s.nodes)) for s in program.report.methods[0].segments]

    assert nodes(few) == nodes(many)
    assert abs(len(many.buffer) / len(few.buffer) - 1) < 0.01


def test_a_program_that_the_user_exported() -> None:
    """There the layer is still aten's."""
    torch.manual_seed(0)
    model = nn.GRU(6, 20, 2).eval()
    x = torch.randn(5, 3, 6)
    program = lower(export(model, (x,)))
    assert [(s.backend, len(s.nodes)) for s in program.report.methods[0].segments] == [("ggml", 1)]
    assert_close_to_eager(
        lambda x: program(x), model, [x], other_inputs=[torch.randn(5, 3, 6)], tolerance=1e-6
    )


def test_without_ggml_layers_are_unrolled() -> None:
    torch.manual_seed(0)
    model = nn.RNN(6, 20).eval()
    x = torch.randn(2, 3, 6)
    program = lower(model, (x,), backends=["xnnpack"])
    nodes = [node for s in program.report.methods[0].segments for node in s.nodes]
    assert len(nodes) > 5
    assert "rnn_tanh" not in nodes
    assert_close_to_eager(
        lambda x: program(x), model, [x], other_inputs=[torch.randn(2, 3, 6)], tolerance=1e-6
    )


def test_dynamic_steps_without_ggml_are_an_error_that_says_so() -> None:
    shapes = {"input": {0: Dim("steps", min=2, max=60)}}
    with pytest.raises(ModelError, match=r"lstm \(aten.lstm.input\) runs over .* steps"):
        lower(nn.LSTM(6, 20), (torch.randn(5, 2, 6),), backends=["xnnpack"], dynamic_shapes=shapes)


def test_cells_are_taken_as_the_ops_that_they_consist_of() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6)
    for cell in (nn.LSTMCell(6, 20), nn.GRUCell(6, 20), nn.RNNCell(6, 20)):
        check_op(cell, [x])


def test_weights_that_are_computed_are_left_to_the_loop() -> None:
    def function(x: Tensor, state: Tensor, w: Tensor, u: Tensor) -> Any:
        return torch.rnn_tanh(x, state, [w * 2, u], False, 1, 0.0, False, False, False)

    torch.manual_seed(0)
    inputs = [torch.randn(s) for s in ((3, 2, 4), (1, 2, 5), (5, 4), (5, 5))]
    check_op(function, inputs)


def reason(program: ExportedProgram) -> str | None:
    """Why ggml does not take the one recurrent layer of a program."""
    (node,) = (n for n in program.graph.nodes if "rnn" in n.name and n.op == "call_function")
    return check_node(node, program, Constants(program))


class Raw(nn.Module):
    """A call of torch.rnn_tanh with two layers."""

    def __init__(self, dropout: float, train: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(4, 4) for _ in range(4))
        self.options = (False, 2, dropout, train, False, False)

    def forward(self, x: Tensor, state: Tensor) -> Any:
        """x of [steps, batch, 4], state of [2, batch, 4]."""
        return torch.rnn_tanh(x, state, list(self.weights), *self.options)


def test_dropout_between_layers_is_refused_only_while_training() -> None:
    inputs = (torch.randn(3, 2, 4), torch.randn(2, 2, 4))
    for dropout, train in ((0.5, True), (0.5, False), (0.0, True)):
        with RecurrentLayersPreserved():
            found = reason(export(Raw(dropout, train), inputs))
        refused = dropout > 0 and train
        assert (found is not None) == refused
        assert not refused or "dropout" in str(found)


def test_ops_that_stay_whole_agree_with_atens() -> None:
    """With their values on real tensors and their sizes on fake ones."""
    torch.manual_seed(0)
    for kind in KINDS:
        for form in forms(kind)[:8]:
            stack = Stack(kind, form).eval()
            given = inputs_for(kind, form, 0)
            with torch.no_grad():
                expected = outputs_of(stack(*given))
                with RecurrentLayersPreserved():
                    actual = outputs_of(stack(*given))
                    fake = outputs_of(nn.Module.to(stack, "meta")(*(x.to("meta") for x in given)))
            for a, b, c in zip(actual, expected, fake, strict=True):
                assert a.equal(b)
                assert (a.shape, a.stride()) == (c.shape, c.stride())
