"""Packages of the extra `llm`, which only this room needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.frontend.errors import ModelError


def needs(package: str) -> Any:
    """Import a package of the extra.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"language models need the package {package}, of the extra `llm` in pyproject.toml: "
            "tools/dependencies.sh .venv/bin/python in a checkout, or pip install "
            f"{package}"
        ) from error


@contextmanager
def failing_as(message: str) -> Iterator[None]:
    """Have what the package tokenizers raises over damaged files be a ModelError.

    It has no type of its own for that, and panics of its Rust code are no Exceptions.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelError(f"{message}: {error}") from error
        raise
