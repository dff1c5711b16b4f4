"""What all tests share."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness import accuracy
from tests.harness.patterns import exported_once
from tests.harness.seeds import seed_all


def pytest_addoption(parser: pytest.Parser) -> None:
    """--accuracy: where to put the errors of ops (see tools/accuracy.py); --seed: other numbers."""
    parser.addoption("--accuracy", type=Path, help="append the errors of ops to this file")
    parser.addoption("--seed", type=int, default=0, help="of all random numbers in tests (0)")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads its option
def pytest_configure(config: pytest.Config) -> None:
    """Property tests draw by the same seed, unless they were given one or CI=1 fixes them.

    Eager PyTorch computes with one thread where pytest-xdist runs one worker per core. torch writes
    down every graph for whoever listens to its tracing; pytest, which keeps what is logged, does so
    unless it is told that this reaches it anyway.
    """
    logging.getLogger("torch.__trace").propagate = True
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(config.getoption("--seed"))
    if hasattr(config, "workerinput"):  # the other cores are other workers'
        torch.set_num_threads(1)
    gc.disable()  # what is imported while tests are collected stays


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down what this process, perhaps one of several, noted."""
    path = session.config.getoption("--accuracy")
    if path is not None:
        accuracy.append_to(path)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Python looks for garbage less often, and not in what is imported.

    Passes make objects by the million, most of which are let go without a search.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)  # objects, and how often the younger generations come first
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Seed what a module draws while it is imported."""
    seed_all(collector.config.getoption("--seed"), collector.nodeid)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Seed what fixtures of several tests draw, whichever of these tests runs first."""
    if fixturedef.scope != "function":
        name = f"{request.node.nodeid} {fixturedef.argname} {getattr(request, 'param_index', 0)}"
        seed_all(request.config.getoption("--seed"), name)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Say how to draw the same numbers again where a test failed."""
    report = yield
    if report.failed:
        seed = item.config.getoption("--seed")
        report.sections.append(("seed", f"repeat with: pytest --seed {seed} '{item.nodeid}'"))
    return report


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """A test draws the same numbers whichever tests run before it."""
    seed_all(request.config.getoption("--seed"), request.node.nodeid)


@pytest.fixture(scope="session", autouse=True)
def _no_costs_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was measured on this machine must not decide what tests see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _patterns_exported_once() -> Iterator[None]:
    """Quantizing is most of the time of tests of quantized models."""
    with exported_once():
        yield
