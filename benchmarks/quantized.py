"""Quantized models: this project's default plan beside what else there is, in three tables.

    python benchmarks/quantized.py [MODEL ...] [--tables static dynamic weights]
        [--threads 1 2] [--quick] [--json FILE] [--check]

static: CNNs in int8 (quantized_static.py). dynamic: transformers with int8 activations
(quantized_dynamic.py). weights: one token with weights of integers (quantized_weights.py).
Programs run in turn in one process, in several repeats (see never_slower.py).

--check exits with 1 when a target of a table is missed; each table's file names its own. Half
types have a benchmark of their own, half.py.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import quantized_dynamic, quantized_static, quantized_weights
from benchmarks.running import conclude, parser

TABLES: dict[str, ModuleType] = {
    "static": quantized_static,
    "dynamic": quantized_dynamic,
    "weights": quantized_weights,
}
SECONDS, QUICK_SECONDS = 10.0, 2.0


def main() -> int:
    """Print the tables."""
    options = parser(__doc__ or "")
    options.add_argument("models", nargs="*", help="rows' first columns; all if left out")
    options.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    chosen = options.parse_args()
    warnings.filterwarnings("ignore")
    results: dict[str, list[dict[str, Any]]] = {}
    missed: list[str] = []
    for name in chosen.tables:
        table = TABLES[name]
        names = [each for each in table.NAMES if not chosen.models or each in chosen.models]
        if not names:
            continue
        print(table.HEADER, flush=True)
        rows = []
        for model in names:
            seconds = QUICK_SECONDS if chosen.quick else SECONDS
            for row in table.measure(model, chosen.threads, seconds):
                print(table.show(row), flush=True)
                rows.append(row)
        print()
        missed += table.missed_by(rows)
        results[name] = [asdict(row) for row in rows]
    return conclude(chosen, results, missed)


if __name__ == "__main__":
    sys.exit(main())
