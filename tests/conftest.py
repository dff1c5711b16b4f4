"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ggml_delegate.torch_speed import composite_ops_looked_up_once


@pytest.fixture(scope="session", autouse=True)
def _faster_export() -> Iterator[None]:
    """Lowering is most of the tests' time."""
    with composite_ops_looked_up_once():
        yield
