"""What-if figures against what happens: suggestions are applied and timed.

    python benchmarks/what_if.py [MODEL] [--suggestions N] [--tune off|cached|measure] [--quick]
                                 [--json FILE]

The pins and limits on delegate calls that the report suggests are applied one by one; each program
runs in turn with the one that the plan chose. "predicted" is the report's change of the latency,
"real" the median over the rounds of the difference to the chosen program in the same round. With
--tune off the predictions are estimates from shapes.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import interleave
from benchmarks.running import conclude, native, parser, settled
from examples.models import MODELS
from orchestrator import lower
from orchestrator.report.data import AdviceReport


def changes(advice: AdviceReport) -> dict[str, Any] | None:
    """How `lower` is told to follow a suggestion; None for one that needs code."""
    if advice.kind == "pin":
        return {"pins": dict.fromkeys(advice.atoms, advice.backend)}
    if advice.kind == "partitions":
        return {"max_partitions": int(advice.text.split()[2])}
    return None


def measure(name: str, suggestions: int, tune: str, rounds: int) -> list[dict[str, Any]]:
    """One row per suggestion."""
    spec = MODELS[name]
    model, inputs = spec.build(), spec.inputs(1, 0)
    chosen = lower(model, inputs, tune=tune, threads=1)
    plan = chosen.report.methods[0].plan
    assert plan is not None
    followed = [(item, how) for item in plan.advice if (how := changes(item)) is not None]
    picked = followed[:: max(1, len(followed) // suggestions)][:suggestions]
    programs = {"chosen": chosen.buffer}
    for item, how in picked:
        tuning = "off" if tune == "off" else "cached"
        programs[item.text] = lower(model, inputs, tune=tuning, threads=1, **how).buffer
    runs = {each: settled(native(buffer, inputs, 1)) for each, buffer in programs.items()}
    timings = interleave(runs, rounds)
    base = timings["chosen"].rounds_ms
    rows = []
    for item, _ in picked:
        pairs = zip(timings[item.text].rounds_ms, base, strict=True)
        differences = [own - other for own, other in pairs]
        rows.append(
            {
                "model": name,
                "suggestion": item.text,
                "predicted_ms": -item.gain_ns / 1e6,
                "real_ms": statistics.median(differences),
                "of_ms": timings["chosen"].median_ms,
            }
        )
    return rows


def main() -> int:
    """Prints the rows."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("model", nargs="?", default="mobilenet_v2", choices=sorted(MODELS))
    arguments.add_argument("--suggestions", type=int, default=3)
    arguments.add_argument("--tune", choices=("off", "cached", "measure"), default="cached")
    options = arguments.parse_args()
    rows = measure(options.model, options.suggestions, options.tune, 8 if options.quick else 40)
    for row in rows:
        print(
            f"{row['predicted_ms']:+8.3f} ms predicted  {row['real_ms']:+8.3f} ms real  "
            f"of {row['of_ms']:.2f} ms  {row['suggestion']}"
        )
    return conclude(options, {"rows": rows}, [])


if __name__ == "__main__":
    sys.exit(main())
