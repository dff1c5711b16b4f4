"""`orchestrator lower`: make a .pte from a model."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from orchestrator.cli.models import MODEL_HELP, load_model
from orchestrator.cli.options import add_backends, backend_names
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("lower", help="make a .pte from a model")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.pte")
    add_backends(parser)
    parser.add_argument("--report", action="store_true", help="print the report as well")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Lower the model, save the program."""
    with quiet_imports():
        from orchestrator.lowering import LoweringWarning, lower
        from orchestrator.report.text import render_text
    model, *inputs = load_model(options.model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LoweringWarning)
        program = lower(model, *inputs, backends=backend_names(options))
    for warning in caught:
        print(f"orchestrator: warning: {warning.message}", file=sys.stderr)
    program.save(options.output)
    if options.report:
        print(render_text(program.report), end="")
