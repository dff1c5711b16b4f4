"""`orchestrator backends`: list the backends that are known here."""

from __future__ import annotations

import argparse

from orchestrator.cli.errors import describe
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("backends", help="list the backends that are known here")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print one line per backend."""
    del options
    with quiet_imports():
        from orchestrator.backends import backend_names, find_backend
    for name in backend_names():
        try:
            backend = find_backend(name)
            reason = backend.available()
            print(f"{name:10} {backend.backend_id:16} {reason or 'available'}")
        except Exception as error:
            print(f"{name:10} {'-':16} {describe(error)}")
    print(f"{'portable':10} {'-':16} available (ExecuTorch's kernels run what is left)")
