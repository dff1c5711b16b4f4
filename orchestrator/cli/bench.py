"""`orchestrator bench`: time programs side by side."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli.errors import CommandError
from orchestrator.cli.inputs import add_inputs, program_inputs
from orchestrator.cli.models import MODEL_HELP, load_model
from orchestrator.cli.output import Progress, add_json, print_json, print_table
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports
from orchestrator.report.words import time_text

_DESCRIPTION = """Time programs side by side: in every round each one runs once, in turn, so that a
change of the machine's speed meets all alike. The ratio is the median over the rounds of a
program's time to that of the first one in the same round; +- is half the interquartile range."""
_MIN_ROUNDS = 4


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "bench", help="time programs side by side", description=_DESCRIPTION
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.pte")
    parser.add_argument("--eager", metavar="MODEL", help=f"time eager PyTorch too: {MODEL_HELP}")
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="timed rounds (default: %(default)s)"
    )
    add_inputs(parser)
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print one row per program."""
    if options.rounds < _MIN_ROUNDS:
        raise CommandError(f"--rounds is {options.rounds}; expected {_MIN_ROUNDS} or more")
    runners = {str(file): _native(file, options) for file in options.files}
    if options.eager is not None:
        runners[f"eager {options.eager}"] = _eager(options)
    times = _interleaved(runners, options.rounds)
    first = next(iter(times.values()))
    rows = [_row(name, values, first) for name, values in times.items()]
    if options.json:
        print_json({"rounds": options.rounds, "programs": rows})
        return
    print_table(
        ("program", "median", "+-", "ratio", "+-"),
        [
            (
                str(row["program"]),
                time_text(row["median_ns"]),
                f"{100 * row['spread']:.1f} %",
                f"{row['ratio']:.3f}",
                f"{row['ratio_spread']:.3f}",
            )
            for row in rows
        ],
    )


def _native(file: Path, options: argparse.Namespace) -> Callable[[], int]:
    from orchestrator.native import NativeProgram

    program = NativeProgram(file, num_threads=options.threads)
    inputs = program_inputs(program, options)
    return lambda: program.time(options.method, inputs, runs=1, warmup=0)[0]


def _eager(options: argparse.Namespace) -> Callable[[], int]:
    import time

    with quiet_imports():
        import torch
    loaded = load_model(options.eager)
    if len(loaded) != 2:
        raise CommandError(f"--eager {options.eager}: expected PACKAGE.MODULE:FUNCTION")
    model, inputs = loaded
    if options.threads:
        torch.set_num_threads(options.threads)

    def once() -> int:
        with torch.no_grad():
            start = time.perf_counter_ns()
            model(*inputs)
            return time.perf_counter_ns() - start

    return once


def _interleaved(runners: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[int]]:
    times: dict[str, list[int]] = {name: [] for name in runners}
    with Progress() as progress:
        for number in range(rounds + 1):  # the first one warms up
            progress(f"round {number} of {rounds}")
            for name, once in runners.items():
                elapsed = once()
                if number:
                    times[name].append(elapsed)
    return times


def _row(name: str, times: Sequence[int], first: Sequence[int]) -> dict[str, Any]:
    median = statistics.median(times)
    ratios = [own / base for own, base in zip(times, first, strict=True)]
    return {
        "program": name,
        "median_ns": median,
        "spread": _half_range(times) / median,
        "ratio": statistics.median(ratios),
        "ratio_spread": _half_range(ratios),
        "times_ns": list(times),
    }


def _half_range(values: Sequence[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2
