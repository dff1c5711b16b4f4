"""What commands print: JSON or text, colours and progress on a terminal only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json to a command that prints its result."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_color(parser: argparse.ArgumentParser) -> None:
    """Add --color; `wants_color` reads it."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours; auto: on a terminal (default: %(default)s)",
    )


def wants_color(options: argparse.Namespace) -> bool:
    """Whether text for standard output is to be coloured."""
    if options.color == "auto":
        return sys.stdout.isatty()
    return str(options.color) == "always"


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    print(json.dumps(data, indent=2))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print columns as wide as they need; the first `left` ones are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


class Progress:
    """One line on a terminal that says what is going on; nothing elsewhere.

    As a context it takes the line away at the end, also before an error is told.
    """

    def __init__(self) -> None:
        self._shown = 0

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away."""
        self.clear()

    def __call__(self, text: str) -> None:
        """Replace the line."""
        if sys.stderr.isatty():
            print(f"\r{text.ljust(self._shown)}", end="", file=sys.stderr, flush=True)
            self._shown = len(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0
