"""Planning and lowering a MODEL for the commands that do so, with progress on a terminal."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
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


class Lowering:
    """A context in which something is lowered: tells how far it is, and of warnings at the end."""

    def __init__(self, name: str) -> None:
        """Name what is lowered."""
        self._name = name
        self._progress = Progress()
        self._warnings = warnings.catch_warnings(record=True)
        self._caught: Sequence[warnings.WarningMessage] | None = None

    def __enter__(self) -> Lowering:
        """Start to tell and to listen."""
        self._progress(f"loading {self._name}")
        self._caught = self._warnings.__enter__()
        warnings.simplefilter("ignore")
        with quiet_imports():
            from orchestrator.lowering import LoweringWarning
        warnings.simplefilter("always", LoweringWarning)
        return self

    def __exit__(self, *error: object) -> None:
        """Print warnings on standard error, unless there is an error to tell of."""
        self._progress.clear()
        self._warnings.__exit__(*error)
        if error[0] is None:
            for each in self._caught or ():
                print(f"orchestrator: warning: {each.message}", file=sys.stderr)

    def stage(self, text: str) -> None:
        """Tell what is being done."""
        self._progress(text)

    def tell(self, event: TuneEvent) -> None:
        """Tell how far it is."""
        self._progress(_event_text(event))


def lowered(
    name: str,
    options: argparse.Namespace,
    etrecord: str | os.PathLike[str] | None = None,
) -> LoweredProgram:
    """Lower a MODEL; warnings are lines on standard error.

    options: those of `add_backends` and `add_planning`.
    """
    arguments = planning_options(options)
    with Lowering(name) as lowering:
        from orchestrator.lowering import lower

        model, *inputs = load_model(name)
        lowering.stage("exporting, planning and lowering")
        return lower(
            model,
            *inputs,
            backends=backend_names(options),
            etrecord=etrecord,
            progress=lowering.tell,
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
