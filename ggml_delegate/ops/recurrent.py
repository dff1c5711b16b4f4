"""Recurrent layers: LSTM, GRU and simple RNNs over whole sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, Size, node_value, op_name
from ggml_delegate.ops.attention import same_size
from ggml_delegate.ops.panels import PANEL_WIDTH, to_panels
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register


@dataclass(frozen=True)
class _Cell:
    kind: Any  # ir.RecurrentKind
    gates: int


_CELLS = {
    "lstm": _Cell(ir.RecurrentKind.Lstm, 4),
    "gru": _Cell(ir.RecurrentKind.Gru, 3),
    "rnn_tanh": _Cell(ir.RecurrentKind.RnnTanh, 1),
    "rnn_relu": _Cell(ir.RecurrentKind.RnnRelu, 1),
}


class _Call:
    """The arguments of a call, all of these ops having the same.

    Attributes:
        states: of [layers * directions, batch, p], and for an LSTM [layers * directions, batch, h].
        per_layer: by layer and direction, the nodes of its weights and biases.
    """

    def __init__(self, node: NodeView) -> None:
        self.cell = _CELLS[op_name(node.fx).split(".")[1]]
        hx = node.arg(1, "hx")
        self.states: list[Node] = hx if isinstance(hx, list) else [hx]
        self.params: list[Node] = node.arg(2, "params")
        self.layers: int = node.arg(4, "num_layers")
        self.drops = self.layers > 1 and bool(node.arg(6, "train")) and node.arg(5, "dropout") > 0
        self.directions = 2 if node.arg(7, "bidirectional") else 1
        self.batch_first = bool(node.arg(8, "batch_first"))
        self.has_biases = bool(node.arg(3, "has_biases"))
        self.hidden: int = node_value(self.states[-1]).shape[-1]
        self.outputs: int = node_value(self.states[0]).shape[-1]
        self.projects = len(self.states) > 1 and self.hidden != self.outputs
        count = 2 + 2 * self.has_biases + self.projects
        self.per_layer = [self.params[i : i + count] for i in range(0, len(self.params), count)]

    def layer(self, number: int) -> list[list[Node]]:
        """By direction, the nodes of one layer's weights and biases."""
        first = number * self.directions
        return self.per_layer[first : first + self.directions]


def _rows(weight: Tensor, gates: int) -> Tensor:
    """[gates * h, ...] -> [ceil(h / 16) * gates * 16, ...], in the schema's sequence."""
    hidden = weight.shape[0] // gates
    split = weight.detach().to(torch.float32).reshape(gates, hidden, -1)
    padded = torch.nn.functional.pad(split, (0, 0, 0, -hidden % PANEL_WIDTH))
    blocks = padded.reshape(gates, -1, PANEL_WIDTH, padded.shape[-1]).transpose(0, 1)
    return blocks.reshape(-1, *weight.shape[1:])


def _with_fixed_part(bias: Tensor, inner: Tensor, gates: int) -> Tensor:
    """The gates' bias; of a GRU without the new gate's inner one, which the reset gate scales."""
    fixed = inner.clone()
    if gates == 3:
        fixed[2 * len(fixed) // 3 :] = 0
    return bias + fixed


@register
class RecurrentRule(OpRule):
    """aten.lstm, gru, rnn_tanh and rnn_relu of padded sequences, preserved by recurrent_ops.py."""

    targets = tuple(f"aten.{name}.input" for name in _CELLS)
    outputs_via_getitem = True

    def defined_outputs(self, node: NodeView) -> set[int]:
        """Hidden states of all steps, then the last states."""
        return set(range(1 + len(_Call(node).states)))

    def check(self, node: NodeView) -> Reason | None:
        """Refuses dropout between layers, weights that are computed and states that do not fit."""
        call = _Call(node)
        if call.drops:
            return Reason("training", "a recurrent layer with dropout in training mode")
        if any(param not in node.constants for param in call.params):
            return Reason("computed", "a recurrent layer with weights that are computed")
        if node.rank(0) != 3 or any(node_value(state).dim() != 3 for state in call.states):
            return Reason("rank", "a recurrent layer over other ranks than 3")
        batch = node.sizes(0)[0 if call.batch_first else 1]
        count = call.layers * call.directions
        for state in call.states:
            sizes = list(node_value(state).shape)
            if not (same_size(sizes[0], count) and same_size(sizes[1], batch)):
                return Reason(
                    "unsupported", f"states of sizes {sizes} for {count} layers and directions"
                )
            if not isinstance(sizes[2], int):
                return Reason("dynamic", "a dynamic number of units")
        if len(call.per_layer) != count:
            return Reason(
                "unsupported", f"{len(call.params)} weights for {count} layers and directions"
            )
        return inexpressible(node.sizes(0))

    def lower(self, node: NodeView, builder: Builder) -> None:
        """A Linear for the inputs of all steps and a Recurrent per layer."""
        call = _Call(node)
        x = builder.value(node.node(0))
        sizes = node.sizes(0)
        if call.batch_first:
            sizes = [sizes[1], sizes[0], sizes[2]]
            x = builder.temp(ir.Permute(dims=[1, 0, 2]), [x], sizes)
        read = {int(user.args[1]) for user in node.fx.users if user.users} - {0}  # type: ignore[arg-type]
        states: list[list[int]] = []
        for number in range(call.layers):
            packed = _packed(node, call, number)
            x, *last = _lower_layer(builder, call, number, packed, x, sizes[:2], bool(read))
            states.append(last)
        results = {0: x}
        if call.batch_first:
            results[0] = builder.temp(ir.Permute(dims=[1, 0, 2]), [x], node.out_sizes(0))
        for index in read:
            parts = [last[index - 1] for last in states]
            results[index] = (
                parts[0]
                if len(parts) == 1
                else builder.temp(ir.Concat(dim=0), parts, node.out_sizes(index))
            )
        builder.define(node.fx, results)


@dataclass(frozen=True)
class _Packed:
    """One layer's weights as a Linear and a Recurrent read them, directions one after the other."""

    inputs: Tensor
    bias: Tensor | None
    recurrent: Tensor
    inner_bias: Tensor | None
    projection: Tensor | None


def _packed(node: NodeView, call: _Call, number: int) -> _Packed:
    gates = call.cell.gates
    weights = [[node.constants.tensor(param) for param in each] for each in call.layer(number)]
    bias = inner = projection = None
    if call.has_biases:
        bias = torch.cat([_rows(_with_fixed_part(w[2], w[3], gates), gates) for w in weights])
        if call.cell.kind == ir.RecurrentKind.Gru:
            inner = torch.cat([_rows(w[3][2 * call.hidden :], 1) for w in weights])
    if call.projects:
        projection = torch.cat([to_panels(w[-1].to(torch.float32)) for w in weights])
    return _Packed(
        inputs=torch.cat([_rows(w[0], gates) for w in weights]),
        bias=bias,
        recurrent=torch.cat([_rows(w[1], gates) for w in weights]),
        inner_bias=inner,
        projection=projection,
    )


def _lower_layer(
    builder: Builder,
    call: _Call,
    number: int,
    packed: _Packed,
    x: int,
    steps_and_batch: list[Size],
    with_states: bool,
) -> list[int]:
    """The tensor numbers of one layer's results, of its last states if they are read."""

    def added(weight: Tensor | None) -> int | None:
        return None if weight is None else builder.constant(weight)

    gates = builder.temp(
        ir.Linear(),
        [x, added(to_panels(packed.inputs)), added(packed.bias)],
        [*steps_and_batch, packed.inputs.shape[0]],
    )
    hidden, cell, *_ = [*(_of_layer(builder, call, s, number) for s in call.states), None]
    sizes = [[*steps_and_batch, call.directions * call.outputs]]
    if with_states:
        sizes += [[call.directions, *node_value(state).shape[1:]] for state in call.states]
    inputs = [
        gates,
        added(to_panels(packed.recurrent)),
        hidden,
        cell,
        added(packed.projection),
        added(packed.inner_bias),
    ]
    return builder.temps(ir.Recurrent(kind=call.cell.kind), inputs, sizes)


def _of_layer(builder: Builder, call: _Call, state: Node, number: int) -> int:
    """One layer's part of an initial state."""
    if call.layers == 1:
        return builder.value(state)
    sizes = [call.directions, *node_value(state).shape[1:]]
    start = builder.dim(number * call.directions)
    return builder.temp(ir.Slice(dim=0, start=start), [builder.value(state)], sizes)
