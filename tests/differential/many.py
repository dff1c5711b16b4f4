"""One program of many random graphs, checked by a process of its own."""

from __future__ import annotations

import functools
import gc
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from orchestrator.backends import Backend
from orchestrator.frontend.torch_speed import repeated_work_spared
from tests.differential.check import Failure, Tally, check_by_lower, check_graphs, reduce_failure
from tests.differential.graphs import Graph
from tests.differential.kinds import KINDS, Kind
from tests.differential.plans import plans_for, two_plans_for
from tests.differential.proposals import RECURRENT
from tests.differential.third import backends_with
from tests.differential.traits import traits_of
from tests.harness.patterns import exported_once

# How many failures of a program are cut down; where there are more, they are mostly alike.
_REDUCED = 3
# What the graphs that go through lower(), which plans them by itself, are lowered for: some at a
# time (many side by side take long to plan), for one subset after the other.
_SUBSETS = (("ggml", "xnnpack"), ("ggml",), ("xnnpack",), ("xnnpack", "ggml"), ())


def set_up_worker() -> None:
    """Prepares a process in which nothing but programs is checked."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays


def check_program(seed: int, name: str = "plain", graphs: int | None = None) -> Tally:
    """Checks one program of a kind, with as many graphs as it has by default, or so many."""
    kind = KINDS[name]
    rng = random.Random(seed)
    # Exporting makes objects by the million that live until the program is made.
    gc.disable()
    try:
        with repeated_work_spared(), exported_once():
            made = [kind.draw(rng) for _ in range(kind.graphs if graphs is None else graphs)]
            tally = _check(made, kind, seed)
    finally:
        gc.enable()
        gc.collect()
    tally.graphs = len(made)
    for graph in made:
        tally.traits.update(traits_of(graph))
    return tally


def check_task(task: tuple[int, str]) -> tuple[tuple[int, str], Tally]:
    """Checks one program of a seed and a kind, in another process than that of the command.

    Not in `__main__`, which processes that are spawned do not import.
    """
    return task, check_program(*task)


def _check(graphs: Sequence[Graph], kind: Kind, seed: int) -> Tally:
    solvers = (two_plans_for if kind.as_lower_does else plans_for)(graphs, seed, kind.third)
    tally = check_graphs(kind.subject(graphs), solvers)
    _reduce(tally, lambda graph: check_graphs(kind.subject([graph]), solvers))
    # Kernels that change a tensor's rank refuse channels-last tensors: see plans_for.
    images = any(spec.channels_last for graph in graphs for spec in graph.inputs)
    for_lower = graphs[: kind.by_lower]
    for start in range(0, len(for_lower), kind.at_once):
        number = (seed * kind.by_lower + start) // kind.at_once
        at_once = for_lower[start : start + kind.at_once]
        both = images or any(map(_runs_over_dynamic_steps, at_once))
        backends: Sequence[str | Backend] = _SUBSETS[0 if both else number % len(_SUBSETS)]
        if kind.third:
            backends = backends_with(kind.third)
        subject = kind.subject(at_once)
        found = check_by_lower(subject, backends)
        check_one = functools.partial(_check_one, kind=kind, backends=backends)
        _reduce(found, check_one)
        tally.add(found)
    return tally


def _runs_over_dynamic_steps(graph: Graph) -> bool:
    """Whether a graph may need ggml, which alone takes recurrent layers."""
    return graph.dynamic and any(step.op in RECURRENT for step in graph.steps)


def _check_one(graph: Graph, kind: Kind, backends: Sequence[str | Backend]) -> Tally:
    return check_by_lower(kind.subject([graph]), backends)


def _reduce(tally: Tally, check: Callable[[Graph], Tally]) -> None:
    failures = list(_one_each(tally))
    reduced = [reduce_failure(failure, check) for failure in failures[:_REDUCED]]
    tally.failures = reduced + failures[_REDUCED:]


def _one_each(tally: Tally) -> Iterator[Failure]:
    """The first failure of each graph."""
    seen: set[int] = set()
    for failure in tally.failures:
        if id(failure.graph) not in seen:
            seen.add(id(failure.graph))
            yield failure
