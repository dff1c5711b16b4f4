"""`orchestrator verify`: compare a .pte with its model, delegate call by delegate call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.models import MODEL_HELP, load_model
from orchestrator.cli.output import Progress, add_json, print_json, print_table
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports
from orchestrator.report.words import modules_text, ops_text, plural, schemes_text, wrapped

if TYPE_CHECKING:
    from orchestrator.verify import Check, Verification

_DESCRIPTION = """Run a .pte and compare what every delegate call gives with what its ops give in
eager PyTorch for the same inputs; then the results of the method with those of the model; so for
every method. Names the first call that is off. Exit code 3 if one is."""
_EXAMPLES = """example:
  orchestrator verify model.pte package.module:function --tolerance 1e-5"""
_CHECK_FAILED = 3


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "verify",
        help="compare a .pte with its model, call by call",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.pte")
    parser.add_argument("model", metavar="MODEL", help=f"what it was made from: {MODEL_HELP}")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference as a part of the largest expected value (default: 1e-4, and for "
        "quantized layers what their scheme allows)",
    )
    parser.add_argument("--method", metavar="NAME", help="the method (default: each one, in turn)")
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print one row per tensor; return whether all are right."""
    with quiet_imports():
        from orchestrator.report.embed import read_report
        from orchestrator.verify import verify
    names = [options.method or each.name for each in read_report(options.file).methods]
    found = []
    with Progress() as progress:
        model, *inputs = load_model(options.model)
        for name in dict.fromkeys(names):
            progress(f"comparing method {name}")
            found.append(
                verify(options.file, model, *inputs, method=name, tolerance=options.tolerance)
            )
    passed = all(each.first_off is None for each in found)
    if options.json:
        print_json({"passed": passed, "methods": list(map(_as_data, found))})
    else:
        for each in found:
            _print(each)
    return 0 if passed else _CHECK_FAILED


def _as_data(found: Verification) -> dict[str, Any]:
    return {
        "method": found.method.name,
        "passed": found.first_off is None,
        "checks": [{**vars(check), "passed": check.passed} for check in found.checks],
    }


def _print(found: Verification) -> None:
    rows = [_row(check) for check in found.checks]
    print(f"method {found.method.name}")
    for number, segment in enumerate(found.method.segments):
        if segment.schemes:
            print("\n".join(wrapped(schemes_text(segment.schemes), f"  segment {number:<3} ")))
    print_table(("segment", "runs on", "tensor", "off by", "allowed", "", ""), rows, left=3)
    print()
    first = found.first_off
    if first is None:
        print(f"{found.method.name}: {plural(len(rows), 'tensor')} within what is allowed")
    elif first.segment is None:
        print(f"every delegate call is right, but {first.what} is off: ops on kernels, or rewrites")
    else:
        segment = found.method.segments[first.segment]
        print(f"the first call that is off: segment {first.segment} on {first.backend}")
        print("\n".join(wrapped(ops_text(segment.ops), "  ops     ")))
        print("\n".join(wrapped(modules_text(segment.modules), "  modules ")))


def _row(check: Check) -> tuple[Any, ...]:
    where = "-" if check.segment is None else str(check.segment)
    state = "ok" if check.passed else "OFF"
    numbers = (f"{check.error:.1e}", f"{check.allowed:.1e}")
    return (where, check.backend or "-", check.what, *numbers, state, check.rule)
