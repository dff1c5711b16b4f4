"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ggml_delegate.torch_speed import repeated_work_spared
from tests.harness import accuracy


def pytest_addoption(parser: pytest.Parser) -> None:
    """--accuracy: where to put the errors of ops (see tools/accuracy.py)."""
    parser.addoption("--accuracy", type=Path, help="append the errors of ops to this file")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down what this process, perhaps one of several, noted."""
    path = session.config.getoption("--accuracy")
    if path is not None:
        accuracy.append_to(path)


@pytest.fixture(scope="session", autouse=True)
def _no_costs_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was measured on this machine must not decide what tests see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _faster_export() -> Iterator[None]:
    """Lowering is most of the tests' time."""
    with repeated_work_spared():
        yield
