"""Random graphs, lowered under several plans, compute what eager PyTorch does."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator

import pytest
import torch

from tests.differential.many import PER_PROGRAM, check_program

GRAPHS = 500


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


@pytest.mark.parametrize("seed", range(math.ceil(GRAPHS / PER_PROGRAM)))
def test_every_plan_computes_what_eager_does(seed: int) -> None:
    tally = check_program(seed)
    if tally.failures:
        pytest.fail("\n\n".join(map(str, tally.failures)), pytrace=False)
    assert tally.graphs == PER_PROGRAM
    assert tally.plans >= tally.graphs
    assert tally.elements > 0
