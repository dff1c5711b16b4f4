"""Planning and lowering a MODEL for the commands that do so, with progress on a terminal."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.models import load_model
from orchestrator.cli.options import backend_names, planning_options
from orchestrator.cli.output import Progress, wants_color
from orchestrator.quiet import quiet_imports

if TYPE_CHECKING:
    import os

    from orchestrator.options import TuneEvent
    from orchestrator.program import LoweredProgram
    from orchestrator.report.data import Report


def planned_report(name: str, options: argparse.Namespace) -> Report:
    """Return the report on what `lower` would do with a MODEL.

    options: those of `add_backends` and `add_planning`.
    """
    arguments = planning_options(options)
    with Progress() as progress:
        progress(f"loading {name}")
        with quiet_imports():
            from orchestrator.dry_run import plan
        model, *inputs = load_model(name)
        progress("exporting and planning")
        return plan(model, *inputs, backends=backend_names(options), **arguments).report


@contextmanager
def telling(name: str) -> Iterator[Callable[[str | TuneEvent], None]]:
    """Have something lowered: give what tells how far it is; at the end, print warnings."""
    with Progress() as progress, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        progress(f"loading {name}")
        with quiet_imports():
            from orchestrator.lowering import LoweringWarning
        warnings.simplefilter("always", LoweringWarning)
        yield lambda what: progress(what if isinstance(what, str) else _event_text(what))
    for warning in caught:
        print(f"orchestrator: warning: {warning.message}", file=sys.stderr)


def lowered(
    name: str,
    options: argparse.Namespace,
    etrecord: str | os.PathLike[str] | None = None,
) -> LoweredProgram:
    """Lower a MODEL; warnings are lines on standard error.

    options: those of `add_backends` and `add_planning`.
    """
    arguments = planning_options(options)
    with telling(name) as tell:
        from orchestrator.lowering import lower

        model, *inputs = load_model(name)
        tell("exporting, planning and lowering")
        return lower(
            model,
            *inputs,
            backends=backend_names(options),
            etrecord=etrecord,
            progress=tell,
            **arguments,
        )


def lowered_file(name: str, options: argparse.Namespace, folder: Path) -> Path:
    """Lower a MODEL into a file in a folder."""
    file = folder / "model.pte"
    lowered(name, options).save(file)
    return file


def add_shown(parser: argparse.ArgumentParser) -> None:
    """Add --report and --json to a command that saves a program; `show` reads them."""
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--report", action="store_true", help="print the report as well")
    shown.add_argument("--json", action="store_true", help="print the report as JSON")


def show(report: Report, options: argparse.Namespace) -> None:
    """Print a report as it is asked for."""
    if options.json:
        print(report.to_json())
    elif options.report:
        from orchestrator.report.text import render_text

        print(render_text(report, color=wants_color(options)), end="")


def _event_text(event: TuneEvent) -> str:
    left = "" if event.remaining_s is None else f", {event.remaining_s:.0f} s left"
    return f"{event.stage}: {event.done} of {event.total}{left}"
