"""What tests need of a backend; where it is missing, they are skipped, and say why."""

from __future__ import annotations

import pytest

from orchestrator.testing.cases import Case
from orchestrator.testing.subject import Subject


def needs_lowering(subject: Subject, case: Case | None = None) -> None:
    """Skip the test where the backend cannot lower here, or takes nothing of a model."""
    reason = subject.backend.available()
    if reason is not None:
        pytest.skip(f"{subject.backend.name} cannot lower here: {reason}")
    if case is not None and not subject.taken(case):
        pytest.skip(f"{subject.backend.name} takes no node of {case}")


def needs_running(subject: Subject, case: Case | None = None) -> None:
    """Skip the test where programs cannot run here, or the backend takes nothing of a model."""
    needs_lowering(subject)
    reason = subject.backend.runnable()
    if reason is not None:
        pytest.skip(f"programs of {subject.backend.name} cannot run here: {reason}")
    needs_lowering(subject, case)
