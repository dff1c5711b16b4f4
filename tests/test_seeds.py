"""Tests draw the same random numbers in every run, whichever tests run before them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.harness.seeds import seed_all

AT_IMPORT = torch.randn(4)


def _draw() -> list[float]:
    return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002


@pytest.fixture(scope="module")
def shared() -> Tensor:
    return torch.randn(4)


def test_name_and_base_decide_what_is_drawn() -> None:
    drawn = []
    for base, name in [(0, "a"), (0, "a"), (0, "b"), (1, "a")]:
        seed_all(base, name)
        drawn.append(_draw())
    assert drawn[0] == drawn[1]
    for other in drawn[2:]:
        assert all(a != b for a, b in zip(drawn[0], other, strict=True))


def test_a_test_draws_by_its_own_name(request: pytest.FixtureRequest) -> None:
    drawn = _draw()
    seed_all(request.config.getoption("--seed"), request.node.nodeid)
    assert drawn == _draw()


def test_a_module_draws_by_its_own_name(request: pytest.FixtureRequest) -> None:
    path = Path(__file__).relative_to(request.config.rootpath).as_posix()
    seed_all(request.config.getoption("--seed"), path)
    assert torch.equal(AT_IMPORT, torch.randn(4))


def test_a_shared_fixture_draws_by_its_own_name(
    request: pytest.FixtureRequest, shared: Tensor
) -> None:
    path = Path(__file__).relative_to(request.config.rootpath).as_posix()
    seed_all(request.config.getoption("--seed"), f"{path} shared 0")
    assert torch.equal(shared, torch.randn(4))
