"""Time to lower: lower() with a warm cost table against ExecuTorch's own flow with XNNPACK alone.

    python benchmarks/lowering.py [MODEL ...] [--quick] [--json FILE] [--check]

Both start from the exported program and end with the bytes of a .pte; they run in turn. The cost
table is filled beforehand, so that plans come from measured costs and nothing is timed. The
profile shows where the time of lower() goes, by cProfile, whose own weight makes shares rough.

--check exits with 1 when lower() takes more than 1.2 times as long.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import interleave, ratio
from benchmarks.running import conclude, parser, timed
from examples.models import MODELS
from orchestrator import lower

MOST_OVER_XNNPACK = 1.2
#: What to show of a profile: (name, file it is in, function).
PARTS = (
    ("decompose and make edge", "_program.py", "_gen_edge_manager_for_partitioners"),
    ("  of that: rewrites (batch norms)", "frontend/rewrites.py", "rewrite"),
    ("ask backends", "backends/candidates.py", "collect_candidates"),
    ("price and solve", "planning/make_plan.py", "make_plan"),
    ("report", "report/build.py", "describe_method"),
    ("ggml preprocess", "ggml_delegate/preprocess.py", "preprocess"),
    ("XNNPACK preprocess", "xnnpack_preprocess.py", "preprocess"),
    ("to_executorch", "_program.py", "to_executorch"),
)
#: Files of PARTS that a plan need not call.
DELEGATES = ("ggml_delegate/preprocess.py", "xnnpack_preprocess.py")


@dataclass(frozen=True)
class Row:
    """Seconds for one model; the ratio is of lower() to ExecuTorch's flow, median over rounds."""

    model: str
    orchestrator_s: float
    executorch_s: float
    ratio: float
    spread: float


def stock(program: torch.export.ExportedProgram) -> bytes:
    """ExecuTorch's own flow, with XNNPACK alone."""
    with torch.no_grad():
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(edge.to_executorch().buffer)


def measure(name: str, table: Path, rounds: int) -> tuple[Row, pstats.Stats]:
    """Times one model, and profiles lower() once more."""
    spec = MODELS[name]
    program = torch.export.export(spec.build(), spec.inputs(1, 0))

    def ours() -> Any:
        return lower(program, cost_table=table)

    lower(program, tune="measure", cost_table=table)
    runs: dict[str, Callable[[], float]] = {
        "ours": timed(ours),
        "stock": timed(lambda: stock(program)),
    }
    timings = interleave(runs, rounds)
    pairs = zip(timings["ours"].rounds_ms, timings["stock"].rounds_ms, strict=True)
    low, _, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    row = Row(
        model=name,
        orchestrator_s=timings["ours"].median_ms / 1e3,
        executorch_s=timings["stock"].median_ms / 1e3,
        ratio=ratio(timings["ours"], timings["stock"]),
        spread=(high - low) / 2,
    )
    profile = cProfile.Profile()
    profile.runcall(ours)
    return row, pstats.Stats(profile)


def shares(stats: pstats.Stats) -> dict[str, float]:
    """The part of lower()'s time that each of PARTS takes.

    Raises:
        LookupError: lower() calls a part in every model, but it is not in the profile.
    """
    calls: dict[tuple[str, int, str], Any] = stats.stats  # type: ignore[attr-defined]
    total = max(entry[3] for entry in calls.values())
    for _, file, wanted in PARTS:
        called = any(path.endswith(file) and function == wanted for path, _, function in calls)
        if not called and file not in DELEGATES:
            raise LookupError(f"{wanted} of {file} is not in the profile: PARTS is out of date")
    return {
        label: sum(
            entry[3]
            for (path, _, function), entry in calls.items()
            if path.endswith(file) and function == wanted
        )
        / total
        for label, file, wanted in PARTS
    }


def main() -> int:
    """Runs the benchmark."""
    arguments = parser(__doc__)
    arguments.add_argument("models", nargs="*", default=["mobilenet_v2", "vit_tiny"])
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            table = Path(folder) / "costs.sqlite"
            row, stats = measure(name, table, 4 if options.quick else 8)
            print(
                f"{name}: lower() {row.orchestrator_s:.2f} s, ExecuTorch with XNNPACK alone "
                f"{row.executorch_s:.2f} s, ratio {row.ratio:.2f} +- {row.spread:.2f}"
            )
            found = shares(stats)
            for label, share in found.items():
                print(f"  {label:<36} {share:>5.0%}")
            rows.append({**asdict(row), "shares": found})
            if row.ratio > MOST_OVER_XNNPACK:
                missed.append(f"{name}: ratio {row.ratio:.2f}, more than {MOST_OVER_XNNPACK}")
    return conclude(options, {"rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
