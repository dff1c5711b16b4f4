"""The command `orchestrator`: one file per command, each with `add_to(commands)` and `run`."""

from __future__ import annotations

from orchestrator.cli.main import main

__all__ = ["main"]
