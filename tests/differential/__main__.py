"""Checks many random graphs: python -m tests.differential --graphs 20000.

Prints what was compared, every mismatch, cut down to few steps, and at the end how many graphs had
each trait; exits 1 if there is a mismatch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from tests.differential.check import Tally
from tests.differential.kinds import KINDS, ORDER, kinds_of
from tests.differential.many import check_task, set_up_worker
from tests.differential.traits import TRAITS, traits_of

# Torch and ExecuTorch keep some of what they made.
_PROGRAMS_PER_PROCESS = 100


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--graphs", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first program (0)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=ORDER, help="of programs, in turn"
    )
    options = parser.parse_args()
    kinds = [kind.name for kind in kinds_of(options.kinds, options.graphs)]
    tasks = [(options.seed + number, kind) for number, kind in enumerate(kinds)]
    total, start = Tally(), time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(options.jobs, set_up_worker, maxtasksperchild=_PROGRAMS_PER_PROCESS) as pool:
        for number, (task, tally) in enumerate(pool.imap_unordered(check_task, tasks), 1):
            total.add(tally)
            for failure in tally.failures:
                print(f"\nmismatch in program {task}: {failure}", flush=True)
            if number % 10 == 0 or number == len(tasks):
                print(f"{time.monotonic() - start:6.0f} s: {_summary(total)}", flush=True)
    print(_table(total))
    return 1 if total.failures else 0


def _summary(total: Tally) -> str:
    return (
        f"{total.graphs:,} graphs, lowered {total.plans:,} times ({total.by_lower:,} by lower()), "
        f"{total.elements:,} elements compared, {len(total.failures)} mismatches"
    )


def _table(total: Tally) -> str:
    """How many graphs had each trait, and how many of them a mismatch."""
    wrong = Counter(trait for failure in total.failures for trait in traits_of(failure.graph))
    lines = [f"{'trait':50s} {'graphs':>7s} {'mismatches':>10s}"]
    lines += [f"{trait:50s} {total.traits[trait]:7,} {wrong[trait]:10,}" for trait in TRAITS]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
