"""One program of many random graphs, checked by a process of its own."""

from __future__ import annotations

import functools
import gc
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from ggml_delegate.torch_speed import repeated_work_spared
from tests.differential.check import Failure, Tally, check_graphs, check_whole, reduce_failure
from tests.differential.generate import random_graph
from tests.differential.graphs import Graph
from tests.differential.plans import plans_for

PER_PROGRAM = 72
# How many of them also go through lower(), which plans them by itself: a few at a time (many side
# by side take long to plan), for one subset after the other.
_WHOLE, _AT_ONCE = 9, 3
_SUBSETS = (("ggml", "xnnpack"), ("ggml",), ("xnnpack",), ("xnnpack", "ggml"), ())
# Of eight programs one has dynamic sizes and one channels-last inputs.
_KINDS = ({}, {"dynamic": True}, {}, {"channels_last": True}, {}, {}, {}, {})


def set_up_worker() -> None:
    """Prepares a process in which nothing but programs is checked."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays


def check_program(seed: int, graphs: int = PER_PROGRAM) -> Tally:
    """Checks one program of some graphs."""
    rng = random.Random(seed)
    kind = _KINDS[seed % len(_KINDS)]
    # Exporting makes objects by the million that live until the program is made.
    gc.disable()
    try:
        with repeated_work_spared():
            made = [random_graph(rng, **kind) for _ in range(graphs)]
            tally = _check(made, seed)
    finally:
        gc.enable()
        gc.collect()
    tally.graphs = len(made)
    return tally


def _check(graphs: Sequence[Graph], seed: int) -> Tally:
    solvers = plans_for(graphs, seed)
    tally = check_graphs(graphs, solvers)
    _reduce(tally, lambda graph: check_graphs([graph], solvers))
    # Kernels that change a tensor's rank refuse channels-last tensors: see plans_for.
    images = any(spec.channels_last for graph in graphs for spec in graph.inputs)
    whole_ones = graphs[:_WHOLE]
    for start in range(0, len(whole_ones), _AT_ONCE):
        number = seed * _WHOLE // _AT_ONCE + start // _AT_ONCE
        backends = _SUBSETS[0] if images else _SUBSETS[number % len(_SUBSETS)]
        whole = check_whole(whole_ones[start : start + _AT_ONCE], backends)
        _reduce(whole, functools.partial(_check_one_whole, backends=backends))
        tally.add(whole)
    return tally


def _check_one_whole(graph: Graph, backends: Sequence[str]) -> Tally:
    return check_whole([graph], backends)


def _reduce(tally: Tally, check: Callable[[Graph], Tally]) -> None:
    tally.failures = [reduce_failure(failure, check) for failure in _one_each(tally)]


def _one_each(tally: Tally) -> Iterator[Failure]:
    """The first failure of each graph."""
    seen: set[int] = set()
    for failure in tally.failures:
        if id(failure.graph) not in seen:
            seen.add(id(failure.graph))
            yield failure
