"""The kit, run for the backends that --backend names."""

from __future__ import annotations

import pytest

from orchestrator.testing.backend_tests import BackendTests
from orchestrator.testing.named import named_backend


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test every backend that was named."""
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("orchestrator_backends", [])
        if not names:
            raise pytest.UsageError(
                "name a backend to test: --backend xnnpack, or --backend my_package.module:MyClass"
            )
        backends = [named_backend(name) for name in names]
        metafunc.parametrize("backend", backends, ids=names, scope="class")


class TestBackend(BackendTests):
    """The tests of a backend that is named on the command line."""
