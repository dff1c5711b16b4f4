"""The kinds of programs that random graphs are drawn for, and how often."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from tests.differential.dynamic_graphs import open_graph
from tests.differential.generate import random_graph
from tests.differential.graphs import Graph
from tests.differential.quantized_graphs import grouped_graph, pt2e_graph, weights_graph
from tests.differential.quantizing import PT2E
from tests.differential.state_graphs import state_graph
from tests.differential.subjects import Subject
from tests.differential.third import STRANGER
from tests.differential.traits import GROUPS, HALF_CACHE, TWO_METHODS


@dataclass(frozen=True)
class Kind:
    """One kind of program.

    traits: that some of its graphs have. graphs: to one program. by_lower: how many of them also go
        through `lower()`, some at once. two_methods: whether they have two methods.
        as_lower_does: see `Subject`; takes longer, so that
        there are fewer graphs and plans to a program. third: a backend beside ggml and XNNPACK.
    """

    name: str
    draw: Callable[[random.Random], Graph]
    traits: frozenset[str] = frozenset()
    graphs: int = 72
    by_lower: int = 9
    at_once: int = 3
    two_methods: bool = False
    as_lower_does: bool = False
    third: str = ""

    def subject(self, graphs: Sequence[Graph]) -> Subject:
        """Graphs of this kind as one program."""
        return Subject(graphs, self.two_methods, self.as_lower_does, self.third)


HALVES = (torch.bfloat16, torch.float16)

_few = partial(Kind, graphs=12, by_lower=3, as_lower_does=True)


def _beside(third: str) -> tuple[Kind, ...]:
    """With a third backend, of contiguous tensors only."""
    images = partial(random_graph, channels_last=True)
    traits = frozenset({"channels-last inputs"})
    return (
        _few(third, random_graph, third=third),
        _few(f"{third}-channels-last", images, traits, third=third),
    )


def _quantized(way: str) -> Kind:
    return _few(way.replace(" ", "-"), partial(pt2e_graph, way=way), frozenset({way}))


_ALL = (
    Kind("plain", random_graph),
    Kind("dynamic-batch", partial(random_graph, dynamic=True), frozenset({"dynamic batch"})),
    Kind(
        "channels-last",
        partial(random_graph, channels_last=True),
        frozenset({"channels-last inputs"}),
    ),
    _few(
        "channels-last-weights",
        partial(random_graph, channels_last_weights=True),
        frozenset({"channels-last weights"}),
    ),
    _few(
        "dynamic-sizes",
        open_graph,
        frozenset({"dynamic height and width", "dynamic length"}),
    ),
    *map(_quantized, PT2E),
    _few("weights", weights_graph, frozenset({"stored embedding"})),
    _few("groups", partial(grouped_graph, dtypes=(*[torch.float32] * 4, *HALVES)), GROUPS),
    _few("states", state_graph, frozenset({"state over several calls"})),
    _few(
        "two-methods",
        partial(state_graph, two_methods=True),
        frozenset({TWO_METHODS}),
        two_methods=True,
    ),
    _few("half-states", partial(state_graph, dtypes=HALVES), frozenset({HALF_CACHE})),
    _few(
        "half-two-methods",
        partial(state_graph, two_methods=True, dtypes=HALVES),
        frozenset({TWO_METHODS, HALF_CACHE}),
        two_methods=True,
    ),
    *(
        _few(str(dtype)[6:], partial(random_graph, dtype=dtype), frozenset({str(dtype)[6:]}))
        for dtype in HALVES
    ),
    *_beside(STRANGER),
    *_beside("openvino"),
)
KINDS = {kind.name: kind for kind in _ALL}


ORDER = (
    *("plain", "dynamic-batch", "static-int8-per-channel", "dynamic-sizes"),
    *("plain", "channels-last", "states", "dynamic-int8-per-channel"),
    *("plain", "plain", "channels-last-weights", "static-int8-per-tensor"),
    *("plain", "bfloat16", "weights", "two-methods"),
    *("plain", "float16", "half-states", "groups", "half-two-methods"),
    *("stranger", "stranger-channels-last"),
)
"""The kinds of the programs by their number, again and again; seeds count the programs."""


def kinds_of(order: Iterable[str], graphs: int) -> Iterator[Kind]:
    """Kinds of programs, until they have so many graphs."""
    names = list(order)
    count = number = 0
    while count < graphs:
        kind = KINDS[names[number % len(names)]]
        yield kind
        count += kind.graphs
        number += 1
