"""One program of many random graphs, checked by a process of its own."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator

import torch

from ggml_delegate.torch_speed import composite_ops_looked_up_once
from tests.differential.check import Failure, Tally, check_graphs, reduce_failure
from tests.differential.generate import random_graph
from tests.differential.plans import plans_for

PER_PROGRAM = 24
# Of eight programs one has dynamic sizes and one channels-last inputs.
_KINDS = ({}, {}, {}, {"dynamic": True}, {}, {}, {}, {"channels_last": True})


def check_program(seed: int) -> Tally:
    """Checks one program of PER_PROGRAM graphs."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rng = random.Random(seed)
    kind = _KINDS[seed % len(_KINDS)]
    graphs = [random_graph(rng, **kind) for _ in range(PER_PROGRAM)]
    solvers = plans_for(graphs, seed)
    with composite_ops_looked_up_once():
        tally = check_graphs(graphs, solvers)
        tally.failures = [reduce_failure(failure, solvers) for failure in _one_each(tally)]
    return tally


def _one_each(tally: Tally) -> Iterator[Failure]:
    """The first failure of each graph."""
    seen: set[int] = set()
    for failure in tally.failures:
        if id(failure.graph) not in seen:
            seen.add(id(failure.graph))
            yield failure
