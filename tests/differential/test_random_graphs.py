"""Random graphs, lowered under several plans, compute what eager PyTorch does."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator

import pytest
import torch

from tests.differential.kinds import KINDS
from tests.differential.many import check_program
from tests.differential.traits import TRAITS, traits_of

# The other kinds, and most graphs, are left to `make differential`.
_MANY = ("plain", "dynamic-batch", "channels-last")
_FEW = (
    *("states", "dynamic-sizes", "static-int8-per-channel", "weights", "two-methods"),
    *("half-states", "groups", "stranger", "stranger-channels-last"),
)
PROGRAMS = (
    *((name, seed, 48) for seed, name in enumerate(_MANY)),
    *((name, seed, 4) for seed, name in enumerate(_FEW, 3)),
)
"""Kinds of programs, with their seeds and how many graphs they have."""


@pytest.fixture(autouse=True)
def _silent_on_one_thread() -> Iterator[None]:
    """As in the processes of `make differential`: small graphs gain nothing from threads."""
    threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(disabled)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("kind", "seed", "graphs"), PROGRAMS)
def test_every_plan_computes_what_eager_does(kind: str, seed: int, graphs: int) -> None:
    tally = check_program(seed, kind, graphs)
    if tally.failures:
        pytest.fail("\n\n".join(map(str, tally.failures)), pytrace=False)
    assert tally.graphs == graphs
    assert tally.plans >= tally.graphs
    assert tally.elements > 0


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_a_kind_have_its_trait(kind: str) -> None:
    rng = random.Random(1)
    traits = set().union(*(traits_of(KINDS[kind].draw(rng)) for _ in range(12)))
    assert KINDS[kind].traits & traits == KINDS[kind].traits
    assert traits <= set(TRAITS)


@pytest.mark.parametrize("kind", ["static-int8-per-tensor", "dynamic-int8-per-channel", "weights"])
def test_quantized_results_of_a_wrong_scale_are_noticed(kind: str) -> None:
    rng = random.Random(2)
    subject = KINDS[kind].subject([KINDS[kind].draw(rng) for _ in range(4)])
    call = subject.calls[0]
    outputs = [want for wanted in call.wanted for want in wanted]
    assert len(outputs) >= 4
    for want in outputs:
        assert want.difference(want.value) is None
        assert want.difference(want.value * 1.25) is not None
