"""Time and quality of planning on synthetic graphs.

    python benchmarks/planner.py [--quick] [--json FILE] [--check]

Graphs have the shapes of real networks (`planner_graphs`), with layers that repeat or, in the rows
marked "distinct", with costs that are different in every atom. gap is how far the plan is from the
best one at most; greedy how much more the best greedy plan costs. growth is the exponent of time
over atoms, from the row before.

--check exits with 1 when 1,000 atoms take 2 s or more, or 10,000 take 30 s or more.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.planner_graphs import FAMILIES
from benchmarks.running import conclude, parser
from orchestrator.planner import CostGraph, check_segments, greedy, solve

SIZES = (100, 1_000, 10_000)
MOST_SECONDS = {1_000: 2.0, 10_000: 30.0}


@dataclass(frozen=True)
class Row:
    """One graph. gap and greedy_more are fractions; greedy_more None where it was not asked for."""

    family: str
    distinct: bool
    atoms: int
    seconds: float
    growth: float | None
    solver: str
    partitions: int
    gap: float
    greedy_more: float | None


def measure(family: str, distinct: bool, atoms: int, before: Row | None, repeats: int) -> Row:
    """Plans one graph; the fastest of the repeats counts."""
    graph = FAMILIES[family](atoms, distinct)
    seconds = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        plan = solve(graph)
        seconds = min(seconds, time.perf_counter() - start)
    check_segments(graph, plan.segments)
    growth = None
    if before is not None:
        growth = math.log(seconds / before.seconds) / math.log(len(graph.atoms) / before.atoms)
    assert plan.gap is not None
    return Row(
        family=family,
        distinct=distinct,
        atoms=len(graph.atoms),
        seconds=seconds,
        growth=growth,
        solver=plan.solver,
        partitions=len(plan.partitions),
        gap=plan.gap,
        greedy_more=best_greedy(graph) / plan.total_ns - 1 if atoms <= 1_000 else None,
    )


def best_greedy(graph: CostGraph) -> float:
    """The cost of the best greedy plan, every delegate once as the first, in ns."""
    names = [backend.name for backend in graph.backends]
    firsts = [backend.name for backend in graph.backends if backend.is_delegate]
    orders = [[first, *(name for name in names if name != first)] for first in firsts]
    return min(greedy(graph, order).total_ns for order in orders)


def show(row: Row) -> str:
    """One line of the table."""
    growth = "" if row.growth is None else f"{row.growth:.2f}"
    more = "" if row.greedy_more is None else f"{row.greedy_more:+.1%}"
    name = f"{row.family}{', distinct' if row.distinct else ''}"
    return (
        f"{name:<24} {row.atoms:>6} {row.seconds:>8.2f} {growth:>6} {row.solver:<10} "
        f"{row.partitions:>5} {row.gap:>7.2%} {more:>8}"
    )


def main() -> int:
    """Runs the benchmark."""
    arguments = parser(__doc__)
    options = arguments.parse_args()
    print(
        f"{'graph':<24} {'atoms':>6} {'seconds':>8} {'growth':>6} {'solver':<10} {'parts':>5} "
        f"{'gap':>7} {'greedy':>8}"
    )
    rows: list[Row] = []
    missed = []
    for family in FAMILIES:
        for distinct in (False, True):
            before = None
            for size in SIZES[:2] if options.quick else SIZES:
                before = measure(family, distinct, size, before, 2 if size <= 1_000 else 1)
                rows.append(before)
                print(show(before), flush=True)
                limit = MOST_SECONDS.get(size, math.inf)
                if before.seconds >= limit:
                    missed.append(f"{show(before)}: {limit:g} s or more")
    return conclude(options, {"rows": [asdict(row) for row in rows]}, missed)


if __name__ == "__main__":
    sys.exit(main())
