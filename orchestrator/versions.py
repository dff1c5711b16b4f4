"""Versions of what programs are made with; needs none of it to be imported."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

KNOWN_EXECUTORCH = "1.5.1"
"""The version whose private parts were read where they are patched."""


def versions() -> dict[str, str]:
    """Return the versions that a program is made with."""
    return {name: _version(name) for name in ("executorch-orchestrator", "executorch", "torch")}


def executorch_version() -> str:
    """Return the name and the version of the ExecuTorch that is installed."""
    return f"executorch {version('executorch')}"


@functools.cache
def is_known_executorch() -> bool:
    """Whether the ExecuTorch that is installed is the one whose private parts were read."""
    return version("executorch") == KNOWN_EXECUTORCH


def digest_of(files: Iterable[Path]) -> str:
    """Return a short digest of what files hold, in this order: another one after any edit."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def digest_of_text(texts: Iterable[str]) -> str:
    """Return a short digest of texts, in this order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


@functools.cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
