"""`orchestrator report`: show what a program runs where, why, and what it costs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.errors import CommandError
from orchestrator.cli.inputs import add_inputs, program_inputs
from orchestrator.cli.models import MODEL_HELP, is_model
from orchestrator.cli.options import add_backends, add_planning, planning_is_asked_for
from orchestrator.cli.output import Progress, add_color, add_json, wants_color
from orchestrator.cli.parsers import Commands
from orchestrator.cli.planned import lowered_file, planned_report

if TYPE_CHECKING:
    from orchestrator.report.data import Report

_DESCRIPTION = """Show what a program runs where and why: the plan against its alternatives, every
segment, what was not taken and what it would take, and what changes would gain. In a .pte the
report lies in the file itself, so nothing else is needed; a MODEL is planned first, as by
`orchestrator plan`."""
_EXAMPLES = """examples:
  orchestrator report model.pte
  orchestrator report model.pte --html report.html
  orchestrator report model.pte --measure --threads 1
  orchestrator report package.module:function --pin 'encoder.*=xnnpack'
  orchestrator report model.pte --json | jq '.methods[0].plan.alternatives'"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "report",
        help="show what a program runs where, why, and what it costs",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "program",
        metavar="FILE.pte|MODEL",
        help=f"a .pte made by `orchestrator lower`; or a model: {MODEL_HELP}",
    )
    add_renderings(parser)
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument(
        "--etdump",
        type=Path,
        metavar="FILE",
        help="put the times of a profile beside the predicted ones: of `orchestrator run --etdump`",
    )
    measured.add_argument(
        "--measure", action="store_true", help="run the program here and profile it for that"
    )
    parser.add_argument(
        "--runs", type=int, default=10, metavar="N", help="for --measure (default: %(default)s)"
    )
    add_inputs(parser)
    add_backends(parser)
    add_planning(parser, measure=False, title="how to plan a MODEL")
    parser.set_defaults(command=run)


def add_renderings(parser: argparse.ArgumentParser) -> None:
    """Add --html, --dot, --json, --details and --color; `show` reads them."""
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to explore it on")
    parser.add_argument("--dot", type=Path, metavar="FILE", help="write the graph for Graphviz")
    add_json(parser)
    parser.add_argument(
        "--details", action="store_true", help="list the ops and tensors of every segment"
    )
    add_color(parser)


def show(report: Report, options: argparse.Namespace, title: str) -> None:
    """Write the files that were asked for, and print text or JSON."""
    from orchestrator.report.text import render_text

    if options.html is not None:
        from orchestrator.report.html import render_html

        options.html.write_text(render_html(report, title), encoding="utf-8")
    if options.dot is not None:
        from orchestrator.report.dot import render_dot

        options.dot.write_text(render_dot(report), encoding="utf-8")
    if options.json:
        print(report.to_json())
    elif options.html is None and options.dot is None:
        details = True if options.details else None
        print(render_text(report, color=wants_color(options), details=details), end="")


def run(options: argparse.Namespace) -> None:
    """Show the report of a model or inside a file, perhaps with times."""
    if options.runs < 1:
        raise CommandError(f"--runs is {options.runs}; expected 1 or more")
    if not is_model(options.program):
        if planning_is_asked_for(options):
            raise CommandError(
                f"{options.program} is planned already; options on how to plan are for a MODEL"
            )
        file = Path(options.program)
        show(_of_file(file, options), options, file.name)
        return
    if options.etdump is not None:
        raise CommandError("a profile is of one .pte; pass that file instead of the model")
    if not options.measure:
        show(planned_report(options.program, options), options, options.program)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = lowered_file(options.program, options, Path(folder))
        show(_of_file(file, options), options, options.program)


def _of_file(file: Path, options: argparse.Namespace) -> Report:
    from orchestrator.report.embed import read_report
    from orchestrator.report.measured import with_profile

    report = read_report(file)
    profile: Callable[[], bytes] | None = None
    if options.etdump is not None:
        profile = options.etdump.read_bytes
    elif options.measure:
        profile = lambda: _profile(file, options)  # noqa: E731
    return report if profile is None else with_profile(report, profile(), options.method)


def _profile(file: Path, options: argparse.Namespace) -> bytes:
    from orchestrator.native import NativeProgram

    program = NativeProgram(file, num_threads=options.threads, etdump=True)
    inputs = program_inputs(program, options)
    program.run(options.method, inputs)
    program.etdump()  # of the first run, which is slower
    with Progress() as progress:
        for number in range(options.runs):
            progress(f"run {number + 1} of {options.runs}")
            program.run(options.method, inputs)
    return program.etdump()
