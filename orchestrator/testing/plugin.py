"""The option of pytest that names the backends to test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

KIT = "orchestrator.testing"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: Sequence[str]) -> None:
    """--backend: there where the kit is run, so that it is in the way of no other tests."""
    if any(KIT in each or "orchestrator/testing" in each for each in args):
        parser.addoption(
            "--backend",
            action="append",
            default=[],
            dest="orchestrator_backends",
            metavar="NAME",
            help="to test: a registered name, or module:attribute; may be given several times",
        )
