"""What is special about a random graph, for the count at the end of a run."""

from __future__ import annotations

import torch

from tests.differential.graphs import Graph
from tests.differential.pool import MAX_ELEMENTS
from tests.differential.quantizing import WAYS

_SIZES = {
    "n": "dynamic batch",
    "h": "dynamic height and width",
    "w": "dynamic height and width",
    "l": "dynamic length",
}

TWO_METHODS = "state shared by two methods"
TRAITS = (
    "dynamic batch",
    "dynamic height and width",
    "dynamic length",
    "channels-last inputs",
    "channels-last weights",
    "large tensors",
    *WAYS,
    "torchao embedding",
    "state over several calls",
    TWO_METHODS,
    "bfloat16",
    "float16",
)
"""All of them, in the order of the table."""


def traits_of(graph: Graph) -> set[str]:
    """The traits of one graph."""
    found = {_SIZES[symbol.name] for symbol in graph.symbols if not graph.writes}
    if any(spec.channels_last for spec in graph.inputs):
        found.add("channels-last inputs")
    if any(_is_channels_last(value) for value in graph.constants):
        found.add("channels-last weights")
    if any(torch.Size(spec.sizes).numel() > MAX_ELEMENTS for spec in graph.inputs):
        found.add("large tensors")
    if graph.quantized:
        found.add(graph.quantized)
    if any(graph.quantized_weights().values()):
        found.add("torchao embedding")
    if graph.writes:
        found.add(TWO_METHODS if graph.dynamic else "state over several calls")
    if graph.dtype != torch.float32:
        found.add(str(graph.dtype).removeprefix("torch."))
    return found


def _is_channels_last(value: torch.Tensor) -> bool:
    return (
        value.dim() == 4
        and value.is_contiguous(memory_format=torch.channels_last)
        and not value.is_contiguous()
    )
