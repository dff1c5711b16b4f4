"""The command line as a whole: parsing, errors and exit codes.

Exit codes: 0 done, 1 it failed (the message says why), 2 the command line is wrong, 3 a check did
not hold (`verify`), 130 interrupted. `run` has those of the native runner.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from orchestrator.cli import (
    backends,
    bench,
    calibrate,
    compare,
    generate,
    lower,
    lower_llm,
    plan,
    report,
    run,
    verify,
)
from orchestrator.cli.errors import describe

_COMMANDS = (
    *(lower, plan, report, run, lower_llm, generate),
    *(bench, compare, verify, calibrate, backends),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    arguments: without the program's name; those of the process if left out.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command
    try:
        code = command(options)
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
        print(f"orchestrator: {describe(error)}", file=sys.stderr)
        return 1
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator",
        description="Lower PyTorch models to ExecuTorch programs that use several backends.",
        epilog="Exit codes: 0 done, 1 it failed, 2 the command line is wrong, 3 a check did not "
        "hold, 130 interrupted. Text goes to standard output, messages to standard error.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error comes from"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser
