"""`orchestrator lower`: make a .pte from a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.models import MODEL_HELP
from orchestrator.cli.options import add_backends, add_planning
from orchestrator.cli.output import add_color
from orchestrator.cli.parsers import Commands
from orchestrator.cli.planned import add_shown, lowered, show

_DESCRIPTION = """Make a .pte from a model: export it, ask every backend what it can run, choose the
cheapest split and lower each part. The plan and what was rejected travel inside the file."""
_EXAMPLES = """examples:
  orchestrator lower package.module:function -o model.pte
  orchestrator lower model.pt2 -o model.pte --tune measure --report
  orchestrator lower model.pt2 -o model.pte --backends xnnpack --etrecord model.etrecord"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "lower",
        help="make a .pte from a model",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.pte")
    add_backends(parser)
    add_shown(parser)
    add_color(parser)
    parser.add_argument(
        "--etrecord",
        type=Path,
        metavar="FILE",
        help="write an ETRecord too, with which ExecuTorch's Inspector finds source lines",
    )
    add_planning(parser, measure=True)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Lower the model, save the program."""
    program = lowered(options.model, options, options.etrecord)
    program.save(options.output)
    show(program.report, options)
