"""Single layers: the ggml delegate against the XNNPACK delegate against eager PyTorch.

    python benchmarks/ops.py [FAMILY ...] [--threads 1] [--quick] [--json FILE] [--check]

Every layer is a program of its own. Image layers run with contiguous and with channels-last inputs,
which programs take and return as they are. "/ggml" columns are time over ggml's: above 1, ggml is
faster. XNNPACK means the program that XNNPACK's partitioner alone makes, portable kernels included.
--check exits with 1 when the geometric mean of a family is below its target.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import Timing, interleave, ratio
from benchmarks.op_cases import CASES, Case
from benchmarks.running import batched, conclude, geometric_mean, native, parser, timed
from orchestrator import lower

#: XNNPACK's time over ggml's, geometric mean over layers (and layouts) of one or more families.
TARGETS = {
    ("1x1",): 0.8,
    ("depthwise",): 1.0,
    ("dense",): 0.5,
    ("linear",): 0.7,
    ("norm", "softmax", "attention"): 2.0,
}
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def measure(case: Case, threads: int, rounds: int, at_least_ms: float) -> Iterator[dict[str, Any]]:
    """One row per layout."""
    torch.manual_seed(0)
    model, inputs = case.make()
    model.eval()
    for layout, memory_format in _LAYOUTS.items():
        if not case.image and layout != "contiguous":
            continue
        args = inputs
        if case.image:
            args = tuple(_in_layout(x, memory_format) for x in inputs)
        programs = {
            backend: lower(model, args, backends=[backend]) for backend in ("ggml", "xnnpack")
        }
        alternatives = {
            backend: native(program.buffer, args, threads) for backend, program in programs.items()
        }
        alternatives["eager"] = timed(lambda args=args: model(*args))
        with torch.no_grad():
            timings = interleave(
                {name: batched(run, at_least_ms) for name, run in alternatives.items()}, rounds
            )
        yield _row(case, layout, timings)


def _in_layout(x: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """A tensor of one pixel stays as it is: it lies alike in both layouts."""
    return x if x.shape[2:] == (1, 1) else x.to(memory_format=memory_format)


def _row(case: Case, layout: str, timings: dict[str, Timing]) -> dict[str, Any]:
    return {
        "family": case.family,
        "name": case.name,
        "layout": layout,
        "ms": {name: timing.median_ms for name, timing in timings.items()},
        "spread": {name: timing.spread for name, timing in timings.items()},
        "xnnpack_over_ggml": ratio(timings["xnnpack"], timings["ggml"]),
        "eager_over_ggml": ratio(timings["eager"], timings["ggml"]),
    }


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    ms, spread = row["ms"], row["spread"]
    times = " ".join(f"{ms[name]:>8.3f} {spread[name]:>4.0%}" for name in ms)
    return (
        f"{row['family']:<12}{row['name']:<28}{row['layout']:<14}{times} "
        f"{row['xnnpack_over_ggml']:>8.2f} {row['eager_over_ggml']:>7.2f}"
    )


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means over the layers of each family, in both layouts, and of those with a target.

    Groups with a target are left out unless all of their families were measured.
    """
    families = list(dict.fromkeys(row["family"] for row in rows))
    groups = [(family,) for family in families]
    groups += [group for group in TARGETS if len(group) > 1 and set(group) <= set(families)]
    summary = []
    for group in groups:
        ratios = [row["xnnpack_over_ggml"] for row in rows if row["family"] in group]
        summary.append(
            {
                "family": ", ".join(group),
                "rows": len(ratios),
                "xnnpack_over_ggml": geometric_mean(ratios),
                "worst": min(ratios),
                "target": TARGETS.get(group),
            }
        )
    return summary


def main() -> int:
    """Runs the benchmark."""
    options = parser(__doc__)
    families = list(dict.fromkeys(case.family for case in CASES))
    options.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(families))
    options.add_argument("--threads", type=int, default=1)
    args = options.parse_args()
    unknown = set(args.families) - set(families)
    if unknown:
        options.error(f"unknown family {', '.join(unknown)}; known: {', '.join(families)}")
    torch.set_num_threads(args.threads)
    heads = " ".join(f"{name:>8} {'+-':>4}" for name in ("ggml", "xnnpack", "eager"))
    print(f"{'family':<12}{'layer':<28}{'layout':<14}{heads} {'xnn/ggml':>8} {'eager/':>7}")
    rounds, at_least_ms = (7, 1.0) if args.quick else (21, 5.0)
    rows = []
    for case in CASES:
        if args.families and case.family not in args.families:
            continue
        for row in measure(case, args.threads, rounds, at_least_ms):
            rows.append(row)
            print(show(row), flush=True)
    summary = summarize(rows)
    print(f"\n{'family':<26}{'rows':>5} {'xnn/ggml':>9} {'worst':>6} {'target':>7}")
    for line in summary:
        target = "" if line["target"] is None else f">= {line['target']:.1f}"
        print(
            f"{line['family']:<26}{line['rows']:>5} {line['xnnpack_over_ggml']:>9.2f} "
            f"{line['worst']:>6.2f} {target:>7}"
        )
    missed = [
        f"{line['family']}: {line['xnnpack_over_ggml']:.2f}, expected at least {line['target']}"
        for line in summary
        if line["target"] is not None and line["xnnpack_over_ggml"] < line["target"]
    ]
    return conclude(args, {"threads": args.threads, "rows": rows, "families": summary}, missed)


if __name__ == "__main__":
    sys.exit(main())
