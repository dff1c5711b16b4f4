"""The base class of a backend's tests: each test is a rule that backends keep."""

from __future__ import annotations

import pytest

from orchestrator.backends.base import Backend
from orchestrator.testing.answers import Answers
from orchestrator.testing.claims import Claims
from orchestrator.testing.numbers import Numbers
from orchestrator.testing.subject import Subject


class BackendTests(Answers, Claims, Numbers):
    """What holds for every backend; subclass it, and override `make_backend` or `backend`.

    Where the backend's programs cannot run (`Backend.runnable`), tests that run some are skipped.
    """

    @classmethod
    def make_backend(cls) -> Backend:
        """Return the backend to test."""
        raise NotImplementedError(
            f"{cls.__name__}: override make_backend, or the fixture `backend`"
        )

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend to test."""
        return cls.make_backend()

    @pytest.fixture
    def subject(self, backend: Backend) -> Subject:
        """The backend with the programs made for it."""
        return Subject.of(backend)
