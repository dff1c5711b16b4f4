"""The command `orchestrator`.

Exit codes: 0 done, 1 it failed (the message says why), 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.quiet import quiet_imports

_MODEL = "a .pt2 file from torch.export.save, or PACKAGE.MODULE:FUNCTION, where the function \
returns (model, example_inputs)"


class CommandError(Exception):
    """A command cannot be carried out; the message is for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    arguments: without the program's name; those of the process if left out.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head(1), has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("orchestrator: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if options.traceback:
            raise
        print(f"orchestrator: {_describe(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator",
        description="Lower PyTorch models to ExecuTorch programs that use several backends.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error comes from"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    lower = commands.add_parser("lower", help="make a .pte from a model")
    lower.add_argument("model", metavar="MODEL", help=_MODEL)
    lower.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.pte")
    lower.add_argument(
        "--backends",
        default="ggml,xnnpack",
        metavar="NAMES",
        help="comma-separated, the preferred one first; '' for ExecuTorch's kernels alone "
        "(default: %(default)s)",
    )
    lower.add_argument("--report", action="store_true", help="print the report as well")
    lower.set_defaults(command=_lower)

    report = commands.add_parser("report", help="show what a .pte runs where, and why")
    report.add_argument("file", type=Path, metavar="FILE.pte")
    report.add_argument("--json", action="store_true", help="print JSON instead of text")
    report.set_defaults(command=_report)

    backends = commands.add_parser("backends", help="list the backends that are known here")
    backends.set_defaults(command=_backends)
    return parser


def _lower(options: argparse.Namespace) -> None:
    names = [name.strip() for name in options.backends.split(",") if name.strip()]
    with quiet_imports():
        from orchestrator.lowering import LoweringWarning, lower
        from orchestrator.report.text import render_text
    model, *inputs = _load_model(options.model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LoweringWarning)
        program = lower(model, *inputs, backends=names)
    for warning in caught:
        print(f"orchestrator: warning: {warning.message}", file=sys.stderr)
    program.save(options.output)
    if options.report:
        print(render_text(program.report), end="")


def _report(options: argparse.Namespace) -> None:
    from orchestrator.report.embed import read_report
    from orchestrator.report.text import render_text

    report = read_report(options.file)
    print(report.to_json() + "\n" if options.json else render_text(report), end="")


def _backends(options: argparse.Namespace) -> None:
    with quiet_imports():
        from orchestrator.backends import backend_names, find_backend
    for name in backend_names():
        try:
            backend = find_backend(name)
            reason = backend.available()
            print(f"{name:10} {backend.backend_id:16} {reason or 'available'}")
        except Exception as error:
            print(f"{name:10} {'-':16} {_describe(error)}")
    print(f"{'portable':10} {'-':16} available (ExecuTorch's kernels run what is left)")


def _load_model(name: str) -> tuple[Any, ...]:
    """Return the positional arguments for `lower`."""
    path = Path(name)
    if path.suffix == ".pt2":
        if not path.exists():
            raise CommandError(f"there is no file {name!r}")
        with quiet_imports():
            import torch
        return (torch.export.load(path),)
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise CommandError(f"{name!r} is not a model; expected {_MODEL}")
    sys.path.insert(0, "")  # like python -m: modules in the current folder count
    made = getattr(_import(module_name), function_name, None)
    if not callable(made):
        raise CommandError(f"module {module_name!r} has no function {function_name!r}")
    result = made()
    if not isinstance(result, tuple) or len(result) != 2:
        raise CommandError(f"{name} returned {type(result).__name__}, not (model, example_inputs)")
    return result


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, something that it needs is not
        raise CommandError(f"there is no module {module_name!r}") from None


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = str(error).strip()
    expected = isinstance(error, CommandError | ValueError)
    return text if expected and text else f"{type(error).__name__}: {text}"
