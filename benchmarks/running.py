"""Functions that run something once and return its time in milliseconds, for interleave()."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.native import NativeProgram

Timed = Callable[[], float]
WARM_UP_S = 0.15


def timed(run: Callable[[], Any], clock: Callable[[], int] = time.perf_counter_ns) -> Timed:
    """Times a function, by a clock of nanoseconds.

    By time.process_time_ns, it is what all threads of the process computed, which others that keep
    the machine busy change little; threads that wait without sleeping compute as well.
    """

    def once() -> float:
        start = clock()
        run()
        return (clock() - start) / 1e6

    return once


def native(buffer: bytes, inputs: Sequence[Any], threads: int) -> Timed:
    """Times a program's method "forward", without handing its inputs and outputs over.

    The program is mapped from a file, as where it is deployed: weights are aligned there.
    """
    program = NativeProgram.mapped(buffer, num_threads=threads)
    program.method("forward")
    return lambda: program.time("forward", inputs, runs=1, warmup=0)[0] / 1e6


def batched(run: Timed, at_least_ms: float) -> Timed:
    """Times the mean of as many runs in a row as take `at_least_ms`: for what takes microseconds.

    The mean is over the faster half, so that an interruption does not count.
    """
    run()
    first = max(run(), 1e-4)
    count = max(1, round(at_least_ms / first))

    def once() -> float:
        times = sorted(run() for _ in range(count))
        return statistics.fmean(times[: (count + 1) // 2])

    return once


def warmed_up(run: Timed) -> Timed:
    """Runs untimed for a while before each run that counts.

    Threads of what ran before may still spin, and have used the caches; and after a pause the
    threads of a pool may share one core for a tenth of a second before they are spread.
    """

    def once() -> float:
        until = time.perf_counter() + WARM_UP_S
        while True:
            run()
            if time.perf_counter() >= until:
                return run()

    return once


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers, at least one."""
    return statistics.geometric_mean(values)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    result.add_argument("--quick", action="store_true", help="few rounds")
    result.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("/dev/stdout"),
        metavar="FILE",
        help="write the rows to a file, or after the table",
    )
    result.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    return result


def conclude(options: argparse.Namespace, results: Mapping[str, Any], missed: Sequence[str]) -> int:
    """Writes the JSON file, prints the targets missed, and returns the exit status."""
    if options.json:
        options.json.write_text(json.dumps({**results, "missed": list(missed)}, indent=1) + "\n")
    for line in missed:
        print(f"missed: {line}")
    if options.check and not missed:
        print("all targets met")
    return 1 if options.check and missed else 0
