"""Options that several commands share."""

from __future__ import annotations

import argparse


def add_backends(parser: argparse.ArgumentParser) -> None:
    """Add --backends; `backend_names` reads it."""
    parser.add_argument(
        "--backends",
        default="ggml,xnnpack",
        metavar="NAMES",
        help="comma-separated, the preferred one first; '' for ExecuTorch's kernels alone "
        "(default: %(default)s)",
    )


def backend_names(options: argparse.Namespace) -> list[str]:
    """Return the names given by --backends."""
    return [name.strip() for name in options.backends.split(",") if name.strip()]
