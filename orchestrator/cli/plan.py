"""`orchestrator plan`: say what lowering would do, without doing it."""

from __future__ import annotations

import argparse

from orchestrator.cli.models import MODEL_HELP
from orchestrator.cli.options import add_backends, add_planning
from orchestrator.cli.parsers import Commands
from orchestrator.cli.planned import planned_report
from orchestrator.cli.report import add_renderings, show

_DESCRIPTION = """Say what `orchestrator lower` would run where, what that would cost, what the
alternatives are and what is not taken; nothing is lowered."""
_EXAMPLES = """examples:
  orchestrator plan model.pt2
  orchestrator plan package.module:function --backends xnnpack,ggml
  orchestrator plan model.pt2 --pin 'encoder.*=xnnpack' --max-partitions 3
  orchestrator plan model.pt2 --html plan.html"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "plan",
        help="say what lowering would do",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_backends(parser)
    add_renderings(parser)
    add_planning(parser, measure=False)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Plan and show the report."""
    show(planned_report(options.model, options), options, options.model)
