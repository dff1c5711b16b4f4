"""What is special about a random graph, for the count at the end of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.differential.graphs import Graph, Ref
from tests.differential.grouped_weights import GroupedConstant
from tests.differential.pool import MAX_ELEMENTS
from tests.differential.quantizing import WAYS

_SIZES = {
    "n": "dynamic batch",
    "h": "dynamic height and width",
    "w": "dynamic height and width",
    "l": "dynamic length",
}

TWO_METHODS = "state shared by two methods"
HALF_CACHE = "half-type cache read by attention"
# What makes no other numbers of a state, or writes rows into it.
_OF_STATES = frozenset(
    f"aten.{name}"
    for name in (
        *("index_put.default", "index_copy.default", "slice_scatter.default", "view.default"),
        *("permute.default", "slice.Tensor", "squeeze.dim", "unsqueeze.default"),
        *("expand.default", "reshape.default"),
    )
)
_OF_GROUPS = "weights of integers in groups"
_OF_GROUPS_AND_MINIMUMS = "weights of integers in groups with minimums"
TABLE_OF_GROUPS = "embedding of integers in groups"
GROUPS = frozenset({_OF_GROUPS, _OF_GROUPS_AND_MINIMUMS, TABLE_OF_GROUPS})
_EMBEDDING = "aten.embedding.default"
_ATTENTION = "aten.scaled_dot_product_attention.default"
TRAITS = (
    "dynamic batch",
    "dynamic height and width",
    "dynamic length",
    "channels-last inputs",
    "channels-last weights",
    "large tensors",
    *WAYS,
    "stored embedding",
    _OF_GROUPS,
    _OF_GROUPS_AND_MINIMUMS,
    TABLE_OF_GROUPS,
    "state over several calls",
    TWO_METHODS,
    HALF_CACHE,
    "bfloat16",
    "float16",
)
"""All of them, in the order of the table."""


def traits_of(graph: Graph) -> set[str]:
    """The traits of one graph."""
    found = {_SIZES[symbol.name] for symbol in graph.symbols if not graph.writes}
    if any(spec.channels_last for spec in graph.inputs):
        found.add("channels-last inputs")
    if any(isinstance(w, Tensor) and _is_channels_last(w) for w in graph.constants):
        found.add("channels-last weights")
    if any(torch.Size(spec.sizes).numel() > MAX_ELEMENTS for spec in graph.inputs):
        found.add("large tensors")
    if graph.quantized:
        found.add(graph.quantized)
    if any(graph.quantized_weights().values()):
        found.add("stored embedding")
    for index, constant in enumerate(graph.constants):
        if isinstance(constant, GroupedConstant):
            found.add(_OF_GROUPS if constant.weight.mins is None else _OF_GROUPS_AND_MINIMUMS)
            if any(s.op == _EMBEDDING and s.args[0] == Ref("w", index) for s in graph.steps):
                found.add(TABLE_OF_GROUPS)
    if graph.writes:
        found.add(TWO_METHODS if graph.dynamic else "state over several calls")
    if graph.dtype != torch.float32:
        if any(step.op == _ATTENTION and _is_state(graph, step.args[1]) for step in graph.steps):
            found.add(HALF_CACHE)
        found.add(str(graph.dtype).removeprefix("torch."))
    return found


def _is_state(graph: Graph, ref: Ref) -> bool:
    """Whether a value is a state, perhaps a new one, or a part or another form of it."""
    while ref.kind == "v" and graph.steps[ref.index].op in _OF_STATES:
        ref = graph.steps[ref.index].args[0]
    return ref.kind == "x" and graph.inputs[ref.index].state


def _is_channels_last(value: torch.Tensor) -> bool:
    return (
        value.dim() == 4
        and value.is_contiguous(memory_format=torch.channels_last)
        and not value.is_contiguous()
    )
