"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ggml_delegate.torch_speed import repeated_work_spared


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
