"""What-if figures against what happens: suggestions are applied and timed.

    python benchmarks/what_if.py [MODEL] [--suggestions N] [--tune off|cached|measure] [--quick]
                                 [--cost-table FILE] [--json FILE] [--check]

The pins and limits on delegate calls that the report suggests are applied one by one, those with
the greatest predicted change first; each program runs in turn with the one that the plan chose, in
several repeats, each of which loads all programs anew.
"predicted" is the report's change of the latency, "real" the median over the rounds of the
difference to the chosen program in the same round, +- half the interquartile range. With --tune off
the predictions are estimates from shapes. Target: with --tune measure, every change has the
predicted sign and is within a factor of two of the prediction or within 5 % of the whole latency.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import Timing
from benchmarks.repeats import in_repeats
from benchmarks.running import conclude, parser
from examples.models import MODELS
from orchestrator import lower
from orchestrator.planner import PlannerError
from orchestrator.report.data import AdviceReport


def changes(advice: AdviceReport) -> dict[str, Any] | None:
    """How `lower` is told to follow a suggestion; None for one that needs code."""
    if advice.pins:
        return {"pins": dict(advice.pins)}
    if advice.max_partitions is not None:
        return {"max_partitions": advice.max_partitions}
    return None


def measure(options: argparse.Namespace, seconds: float) -> list[dict[str, Any]]:
    """One row per suggestion."""
    spec = MODELS[options.model]
    model, inputs = spec.build(), spec.inputs(1, 0)
    how_to_plan = {"threads": 1, "cost_table": options.cost_table}
    chosen = lower(model, inputs, tune=options.tune, **how_to_plan)
    plan = chosen.report.methods[0].plan
    assert plan is not None
    ranked = sorted(plan.advice, key=lambda item: -abs(item.gain_ns))
    programs, picked = {"chosen": chosen.buffer}, []
    for item in ranked:
        how = changes(item)
        if how is None or len(picked) == options.suggestions:
            continue
        try:
            tuning = "off" if options.tune == "off" else "cached"
            programs[item.text] = lower(model, inputs, tune=tuning, **how_to_plan, **how).buffer
        except PlannerError as error:
            print(f"cannot be followed: {item.text}: {error}")
            continue
        picked.append(item)
    timings = in_repeats(programs, inputs, 1, seconds)
    return [_row(options.model, item, timings) for item in picked]


def _row(model: str, item: AdviceReport, timings: Mapping[str, Timing]) -> dict[str, Any]:
    pairs = zip(timings[item.text].rounds_ms, timings["chosen"].rounds_ms, strict=True)
    differences = [own - other for own, other in pairs]
    low, _, high = statistics.quantiles(differences, n=4)
    return {
        "model": model,
        "suggestion": item.text,
        "predicted_ms": -item.gain_ns / 1e6,
        "real_ms": statistics.median(differences),
        "spread_ms": (high - low) / 2,
        "of_ms": timings["chosen"].median_ms,
    }


def _is_right(row: Mapping[str, Any]) -> bool:
    predicted, real = row["predicted_ms"], row["real_ms"]
    near = abs(predicted - real) <= 0.05 * row["of_ms"]
    return near or (predicted * real > 0 and 0.5 <= real / predicted <= 2)


def main() -> int:
    """Prints the rows."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("model", nargs="?", default="mobilenet_v2", choices=sorted(MODELS))
    arguments.add_argument("--suggestions", type=int, default=3)
    arguments.add_argument("--tune", choices=("off", "cached", "measure"), default="cached")
    arguments.add_argument("--cost-table", type=Path, metavar="FILE")
    options = arguments.parse_args()
    rows = measure(options, 4.0 if options.quick else 20.0)
    for row in rows:
        print(
            f"{row['predicted_ms']:+8.3f} ms predicted  {row['real_ms']:+8.3f} ms real "
            f"+- {row['spread_ms']:.3f}  of {row['of_ms']:.2f} ms  {row['suggestion']}"
        )
    missed = [row["suggestion"] for row in rows if options.tune != "off" and not _is_right(row)]
    return conclude(options, {"rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
