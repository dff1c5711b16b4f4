"""`orchestrator report`: show what a .pte runs where, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.parsers import Commands


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("report", help="show what a .pte runs where, and why")
    parser.add_argument("file", type=Path, metavar="FILE.pte")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print the report inside the file."""
    from orchestrator.report.embed import read_report
    from orchestrator.report.text import render_text

    report = read_report(options.file)
    print(report.to_json() + "\n" if options.json else render_text(report), end="")
