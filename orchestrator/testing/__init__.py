"""A test kit that a backend runs against itself.

From a shell, with one backend or more, by registered name or as "module:attribute":

    pytest --pyargs orchestrator.testing --backend my_package.my_module:MyBackend

or in a test file of the backend's own:

    class TestMyBackend(BackendTests):
        @classmethod
        def make_backend(cls):
            return MyBackend()

It needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.testing.backend_tests import BackendTests

__all__ = ["BackendTests"]


def __getattr__(name: str) -> object:
    # pytest loads the plugin here in all its runs; torch is imported where the kit is used.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator.testing.backend_tests import BackendTests

    return BackendTests
