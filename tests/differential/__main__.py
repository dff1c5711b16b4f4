"""Checks many random graphs: python -m tests.differential --graphs 20000.

Prints what was compared and every mismatch, cut down to few steps; exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.differential.check import Tally
from tests.differential.many import PER_PROGRAM, check_program, set_up_worker

# Torch and ExecuTorch keep some of what they made.
_PROGRAMS_PER_PROCESS = 100


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--graphs", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first program (0)")
    options = parser.parse_args()
    programs = -(-options.graphs // PER_PROGRAM)
    total, start = Tally(), time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(options.jobs, set_up_worker, maxtasksperchild=_PROGRAMS_PER_PROCESS) as pool:
        seeds = range(options.seed, options.seed + programs)
        for number, tally in enumerate(pool.imap_unordered(check_program, seeds), 1):
            total.add(tally)
            for failure in tally.failures:
                print(f"\nmismatch: {failure}", flush=True)
            if number % 10 == 0 or number == programs:
                print(f"{time.monotonic() - start:6.0f} s: {_summary(total)}", flush=True)
    return 1 if total.failures else 0


def _summary(total: Tally) -> str:
    return (
        f"{total.graphs:,} graphs, lowered {total.plans:,} times ({total.whole:,} by lower()), "
        f"{total.elements:,} elements compared, {len(total.failures)} mismatches"
    )


if __name__ == "__main__":
    sys.exit(main())
