"""`orchestrator calibrate`: costs of other devices, and what the cost table holds."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from orchestrator.cli.models import MODEL_HELP, load_model
from orchestrator.cli.options import add_backends, backend_names
from orchestrator.cli.output import Progress, add_json, print_json
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports


def add_to(commands: Commands) -> None:
    """Add the command's parsers."""
    parser = commands.add_parser(
        "calibrate",
        help="measure costs on another device, to plan for it",
        description="Three steps to plan for a device that has no Python: `export` writes small "
        "programs, `orchestrator-run --calibrate` times them on the device, `import` reads the "
        "times. From then on, `lower(..., target=NAME)` plans for it.",
    )
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")

    export = steps.add_parser("export", help="write programs to be timed on a device")
    export.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_HELP)
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    export.add_argument(
        "--threads", type=int, default=1, help="of the device, roughly (default: %(default)s)"
    )
    add_backends(export)
    add_json(export)
    export.set_defaults(command=_export)

    read = steps.add_parser("import", help="read the times that were taken on a device")
    read.add_argument("folder", type=Path, metavar="FOLDER", help="that export wrote")
    read.add_argument("results", type=Path, metavar="RESULTS", help="that orchestrator-run wrote")
    read.add_argument("--target", required=True, metavar="NAME", help="what to call the device")
    _add_table(read)
    add_json(read)
    read.set_defaults(command=_import)

    shown = steps.add_parser("list", help="list the devices whose costs are known")
    _add_table(shown)
    add_json(shown)
    shown.set_defaults(command=_list)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cost-table", type=Path, metavar="FILE", help="instead of the one in the cache folder"
    )


def _export(options: argparse.Namespace) -> None:
    with quiet_imports():
        from orchestrator.backends import resolve_backends
        from orchestrator.cost.calibration import calibration_tasks
        from orchestrator.cost.device import export_tasks
        from orchestrator.frontend.export import as_programs
        from orchestrator.tuning.what_to_measure import collect_tasks
    backends = resolve_backends(backend_names(options))
    tasks = list(calibration_tasks(backends))
    for name in options.models:
        model, *inputs = load_model(name)
        with quiet_imports():
            tasks += collect_tasks(as_programs(model, *inputs), backends, options.threads)
    unique = list({(task.backend_name, task.key): task for task in tasks}.values())

    with Progress() as progress, quiet_imports():
        exported = export_tasks(
            unique, options.output, lambda done: progress(f"{done} of {len(unique)} ops")
        )
    if options.json:
        failures = [
            {"op": label, "backend": backend, "reason": reason}
            for (label, backend), reason in exported.failures.items()
        ]
        print_json({"ops": exported.methods, "programs": exported.programs, "failures": failures})
        return
    print(f"wrote {exported.methods} ops as {exported.programs} programs to {options.output}")
    for (label, backend), reason in exported.failures.items():
        line = reason.splitlines()[0] if reason else ""
        print(f"orchestrator: left out {label} on {backend}: {line}", file=sys.stderr)
    print("on the device: orchestrator-run --calibrate FOLDER --results RESULTS")


def _import(options: argparse.Namespace) -> None:
    from orchestrator.cost.device import import_results
    from orchestrator.cost.table import CostTable

    table = CostTable(options.cost_table)
    imported = import_results(options.folder, options.results, options.target, table)
    where = imported.machine
    if options.json:
        print_json(
            {
                "target": where.target,
                "cpu": where.cpu,
                "threads": where.threads,
                "stored": imported.measured,
                "failed": imported.failed,
            }
        )
        return
    print(
        f"stored the times of {imported.measured} ops for target {where.target!r} ({where.cpu}, "
        f"{where.threads} threads); {imported.failed} could not run there"
    )


def _list(options: argparse.Namespace) -> None:
    from orchestrator.cost.device import measured_targets
    from orchestrator.cost.table import CostTable

    environments = CostTable(options.cost_table).environments()
    if options.json:
        print_json({"environments": [asdict(each) for each in environments]})
        return
    for line in measured_targets(environments):
        print(line)
