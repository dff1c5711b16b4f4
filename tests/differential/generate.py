"""Random graphs of the ops that have rules."""

from __future__ import annotations

import functools
import random

import torch

from ggml_delegate.registry import rules
from tests.differential.graphs import Graph
from tests.differential.grow import MAX_STEPS, TRIES, finish
from tests.differential.pool import Pool
from tests.differential.proposals import PROPOSALS, RECURRENT
from tests.differential.schema_calls import natural_name, step_for
from tests.differential.subjects import is_exportable
from tests.differential.tolerance import is_comparable, outputs_of

_POOLS = 200
# Drawn more often: these have the most forms, and most of a model's work.
_HEAVY = {
    "aten.convolution.default": 8,
    "aten.linear.default": 4,
    "aten.scaled_dot_product_attention.default": 2,
    "aten.layer_norm.default": 2,
    "aten.cat.default": 2,
    "aten.permute_copy.default": 2,
    "aten.slice_copy.Tensor": 2,
}

# Ops that no exported program shows its backends: ExecuTorch or torch replaces them before.
_INTERNAL = {
    "aten._unsafe_view.default",
    "aten.alias_copy.default",
    "aten.alias.default",
    "aten.detach_copy.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
}


# Whether numbers are 0.
_ASKS_FOR_ZEROS = ("aten.logical_", "aten.any.", "aten.all.")


@functools.cache
def targets() -> tuple[str, ...]:
    """The rules' targets to draw from, one of those that mean the same; the heavy ones repeated."""
    seen: dict[object, str] = {}
    for target, rule in rules().items():
        if target in _INTERNAL or rule.inner_dtypes:  # quantized_graphs has the latter
            continue
        key: object = PROPOSALS.get(target) or natural_name(target) or target
        seen.setdefault(key, target)
    return tuple(target for target in seen.values() for _ in range(_HEAVY.get(target, 1)))


def random_graph(
    rng: random.Random,
    *,
    dynamic: bool = False,
    channels_last: bool = False,
    channels_last_weights: bool = False,
    dtype: torch.dtype = torch.float32,
    target: str | None = None,
) -> Graph:
    """A graph of one to MAX_STEPS steps, each of which has finite, smooth and varied results.

    dynamic: the first size of inputs may change. channels_last: images do come so.
    channels_last_weights: weights of images do. dtype: of inputs, constants and results.
    target: an op that has to be among the steps.

    Raises:
        LookupError: no call of `target` is fit for a comparison.
    """
    for _ in range(_POOLS):
        large = rng.random() < 0.08
        pool = Pool(
            rng,
            dynamic=dynamic,
            channels_last=channels_last,
            channels_last_weights=channels_last_weights,
            large=large,
        )
        images = channels_last or channels_last_weights
        pool.new_input(pool.sizes(4 if images else rng.choice([2, 3, 4, 4])))
        if target is not None and not any(_grow(pool, target) for _ in range(TRIES)):
            continue
        wanted = rng.randint(1, MAX_STEPS)
        for _ in range(TRIES * wanted):
            if len(pool.graph.steps) >= wanted:
                break
            _grow(pool, rng.choice(targets()))
        if pool.graph.steps:
            graph = finish(pool)
            graph.dtype = dtype
            fits = computes(graph) and is_comparable(graph) and dynamic == graph.dynamic
            if fits and (not dynamic or is_exportable(graph)):
                return graph
    raise LookupError(
        f"no call of {target or 'any op'} has results fit for a comparison; how to call it goes "
        "into tests/differential/proposals.py"
    )


def computes(graph: Graph) -> bool:
    """Whether eager PyTorch has the graph's ops in its dtype, with results that are no chance.

    Half precision has few digits: whether one is left when terms cancel is chance. Recurrent layers
    round at every step there, and in delegates at the end: tests of their own compare with exact
    ones.
    """
    if graph.dtype == torch.float32:
        return True
    if any(step.op.startswith(_ASKS_FOR_ZEROS) or step.op in RECURRENT for step in graph.steps):
        return False
    try:
        outputs = outputs_of(graph, graph.make_inputs(1))
    except (RuntimeError, NotImplementedError):
        return False
    return all(not out.is_floating_point() or out.dtype == graph.dtype for out in outputs)


def _grow(pool: Pool, target: str) -> bool:
    proposal = PROPOSALS.get(target)
    step = proposal(pool) if proposal is not None else step_for(target, pool)
    return step is not None and pool.try_step(step)
