"""Versions of what programs are made with; needs none of it to be imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Return the versions that a program is made with."""
    return {name: _version(name) for name in ("executorch-orchestrator", "executorch", "torch")}


def executorch_version() -> str:
    """Return the name and the version of the ExecuTorch that is installed."""
    return f"executorch {version('executorch')}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
