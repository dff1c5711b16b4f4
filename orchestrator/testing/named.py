"""Backends by what users write for them on the command line."""

from __future__ import annotations

import functools
import importlib

import pytest

from orchestrator.backends import Backend, BackendError, find_backend
from orchestrator.backends.checks import checked_backend
from orchestrator.quiet import quiet_imports


@functools.cache
def named_backend(name: str) -> Backend:
    """Return the backend of a name, one and the same each time.

    name: a registered one, or "module:attribute". The attribute is a backend, or what makes one
        without arguments.

    Raises:
        pytest.UsageError: there is no such name, module or attribute, or it is no backend.
    """
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            return find_backend(name)
        with quiet_imports():
            found = getattr(importlib.import_module(module), attribute)
        made = found if isinstance(found, Backend) else found()
        return checked_backend(made, attribute)
    except (BackendError, ImportError, AttributeError, TypeError) as error:
        raise pytest.UsageError(f"--backend {name}: {error}") from error
