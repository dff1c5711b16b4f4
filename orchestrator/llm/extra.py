"""Packages of the extra `llm`, which only this room needs."""

from __future__ import annotations

import importlib
from typing import Any


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
