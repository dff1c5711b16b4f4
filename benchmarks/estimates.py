"""How far times estimated from shapes are off, by backend and family of ops.

    python benchmarks/estimates.py [MODEL ...] [--threads N] [--table FILE] [--quick] [--json FILE]
                                   [--check]

The atoms of the models are measured one by one, or taken from a cost table, and compared with their
estimates. "machine" is the median of measured / estimated over all atoms: by how much this machine
is faster or slower than the one that the estimates describe. "bias" is the median of a backend's
and family's ratios over it. Their root mean square distance from it, a factor f, is what a choice
between backends is uncertain by, whatever the machine; "error" is 1 - 1/f, and "spread" what the
estimates are given.

--check exits with 1 when an error exceeds the spread by more than 0.15.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import conclude, parser
from examples.models import MODELS
from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.candidates import collect_candidates
from orchestrator.cost.analytic import family
from orchestrator.cost.environment import host
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.measure import measure
from orchestrator.cost.model import AnalyticCosts, estimates_of
from orchestrator.cost.table import CostTable
from orchestrator.dry_run import edge_program
from orchestrator.frontend.export import as_programs
from orchestrator.options import PlanOptions

DEFAULT_MODELS = ("mobilenet_v2", "vit_tiny", "convnext_tiny")
QUICK_MODELS = DEFAULT_MODELS[:2]
MOST_BEYOND = 0.15
BACKENDS = ("ggml", "xnnpack")
LEAST_NS = 2_000.0  # below, the clock and the call around an atom are much of what is measured


@dataclass(frozen=True)
class Row:
    """A family of ops on a backend; errors and spreads are fractions."""

    backend: str
    family: str
    atoms: int
    bias: float
    error: float
    spread: float


def keys_of(name: str, backends: tuple[Backend, ...]) -> AtomKeys:
    """The atoms of a model."""
    spec = MODELS[name]
    (program,) = as_programs(spec.build(), spec.inputs(1, 0), None, None).values()
    edge = edge_program(program, backends, PlanOptions(tune="off"))
    return AtomKeys(edge, collect_candidates(edge, backends))


def ratios(
    keys: AtomKeys, table: CostTable, threads: int, backends: Sequence[Backend]
) -> dict[tuple[str, str], dict[str, float]]:
    """Measured over estimated time, by backend and family, then by atom key; in the best layout."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    estimated = AnalyticCosts(estimates_of(backends), threads)
    for backend in backends:
        environment = host(threads).running(backend.versions())
        times = table.get(environment, backend.name, set(keys.all_keys()))
        for atom in keys.atoms:
            names = [keys.key(atom, layout) for layout in keys.layouts(atom)]
            known = [times[name].median_ns for name in names if name in times]
            known = [ns for ns in known if ns >= LEAST_NS]
            if known:
                estimate = max(estimated.estimate_ns(atom.nodes, backend.name), 1.0)
                found[backend.name, family(atom.nodes[0])][names[0]] = min(known) / estimate
    return found


def rows_of(
    found: dict[tuple[str, str], dict[str, float]], backends: Sequence[Backend]
) -> tuple[float, list[Row]]:
    """The machine's factor, and a row per backend and family."""
    estimates = estimates_of(backends)
    machine = statistics.median(ratio for each in found.values() for ratio in each.values())
    rows = []
    for (backend, kind), by_key in sorted(found.items()):
        logs = [math.log(ratio / machine) for ratio in by_key.values()]
        error = 1 - math.exp(-math.sqrt(statistics.fmean(log * log for log in logs)))
        bias = math.exp(statistics.median(logs))
        spread = estimates[backend].rates[kind].spread
        rows.append(Row(backend, kind, len(logs), bias, error, spread))
    return machine, rows


def main() -> int:
    """Runs the benchmark."""
    arguments = parser(__doc__)
    arguments.add_argument("models", nargs="*")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--table", type=Path, help="a cost table to use and to extend")
    options = arguments.parse_args()
    names = options.models or (QUICK_MODELS if options.quick else DEFAULT_MODELS)
    backends = resolve_backends(BACKENDS)
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        table = CostTable(options.table or Path(folder) / "costs.sqlite")
        for name in names:
            keys = keys_of(name, backends)
            measure(keys.tasks(backends, options.threads), table, options.threads)
            for place, by_key in ratios(keys, table, options.threads, backends).items():
                found[place].update(by_key)
    machine, rows = rows_of(found, backends)
    print(f"machine: {machine:.2f} times the estimates")
    print(f"{'backend':<8} {'family':<10} {'atoms':>5} {'bias':>6} {'error':>6} {'spread':>6}")
    for row in rows:
        print(
            f"{row.backend:<8} {row.family:<10} {row.atoms:>5} {row.bias:>6.2f} {row.error:>6.0%} "
            f"{row.spread:>6.0%}"
        )
    missed = [
        f"{row.backend}, {row.family}: off by {row.error:.0%}, given as {row.spread:.0%}"
        for row in rows
        if row.error > row.spread + MOST_BEYOND
    ]
    results = {"machine": machine, "rows": [asdict(row) for row in rows]}
    return conclude(options, results, missed)


if __name__ == "__main__":
    sys.exit(main())
