"""What the ways to draw a graph share: weighted proposals, and the end of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.differential.graphs import Graph, Step
from tests.differential.pool import Pool

MAX_STEPS = 7
TRIES = 12

Proposal = Callable[[Pool], Step | None]
"""Draws a step; None if there is nothing that it fits."""


def grow_by(
    pool: Pool, proposals: Mapping[Proposal, int], *, at_least: int = 1, at_most: int = MAX_STEPS
) -> None:
    """Adds some steps, each proposed by one of the functions, with the frequencies given."""
    rng = pool.rng
    choices, weights = list(proposals), list(proposals.values())
    wanted = len(pool.graph.steps) + rng.randint(at_least, at_most)
    for _ in range(TRIES * wanted):
        if len(pool.graph.steps) >= wanted:
            break
        step = rng.choices(choices, weights)[0](pool)
        if step is not None:
            pool.try_step(step)


def finish(pool: Pool) -> Graph:
    """Returns what no step reads, and now and then something that is also read."""
    graph = pool.graph
    read = {ref for step in graph.steps for ref in step.refs()}
    results = [ref for ref in pool.refs(dtype=None) if ref.kind == "v"]
    outputs = [ref for ref in results if ref not in read]
    inner = [ref for ref in results if ref in read]
    if inner and pool.rng.random() < 0.2:
        outputs.append(pool.rng.choice(inner))
    graph.outputs = outputs or results[-1:]
    return graph.pruned()
