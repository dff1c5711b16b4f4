"""Planning and lowering a MODEL for the commands that do so, with progress on a terminal."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.models import load_model
from orchestrator.cli.options import backend_names, planning_options
from orchestrator.cli.output import Progress
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


def lowered(
    name: str,
    options: argparse.Namespace,
    etrecord: str | os.PathLike[str] | None = None,
) -> LoweredProgram:
    """Lower a MODEL; warnings are lines on standard error.

    options: those of `add_backends` and `add_planning`.
    """
    arguments = planning_options(options)
    with Progress() as progress, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        progress(f"loading {name}")
        with quiet_imports():
            from orchestrator.lowering import LoweringWarning, lower
        model, *inputs = load_model(name)
        progress("exporting, planning and lowering")
        warnings.simplefilter("always", LoweringWarning)
        program = lower(
            model,
            *inputs,
            backends=backend_names(options),
            etrecord=etrecord,
            progress=lambda event: progress(_event_text(event)),
            **arguments,
        )
    for warning in caught:
        print(f"orchestrator: warning: {warning.message}", file=sys.stderr)
    return program


def lowered_file(name: str, options: argparse.Namespace, folder: Path) -> Path:
    """Lower a MODEL into a file in a folder."""
    file = folder / "model.pte"
    lowered(name, options).save(file)
    return file


def _event_text(event: TuneEvent) -> str:
    left = "" if event.remaining_s is None else f", {event.remaining_s:.0f} s left"
    return f"{event.stage}: {event.done} of {event.total}{left}"
