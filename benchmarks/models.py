"""Whole models: each choice of backends against XNNPACK alone, eager PyTorch and other runtimes.

    python benchmarks/models.py [MODEL ...] [--threads 1 2] [--quick] [--json FILE] [--check]
                                [--backends ggml ...] [--peers onnxruntime openvino]

All alternatives of a model run in turn in one process; the ratios are medians over rounds.
--check exits with 1 when a target is missed: ggml alone takes more than 1.5 times XNNPACK's time on
MobileNetV2; or, on one thread, ViT-tiny takes more than 1.9 (ggml) or 1.5 (ggml+xnnpack) times the
time of the faster of ONNX Runtime and OpenVINO. Those two have to be installed for that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peers
from benchmarks.interleave import interleave, ratio
from benchmarks.running import conclude, native, parser, timed, warmed_up
from examples.models import MODELS
from orchestrator import lower

CHOICES = {"xnnpack": ["xnnpack"], "ggml": ["ggml"], "ggml+xnnpack": ["ggml", "xnnpack"]}
PEERS = ("onnxruntime", "openvino")
#: (model, alternative, against) -> largest ratio of times
TARGETS = {
    ("mobilenet_v2", "ggml", "xnnpack"): 1.5,
    ("vit_tiny", "ggml", "peers"): 1.9,
    ("vit_tiny", "ggml+xnnpack", "peers"): 1.5,
}


def measure(
    name: str, choices: Sequence[str], others: Sequence[str], threads: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """One row per thread count and alternative."""
    spec = MODELS[name]
    model, inputs = spec.build(), spec.inputs(1, 0)
    programs, seconds = {}, {}
    for choice in dict.fromkeys(["xnnpack", *choices]):
        start = time.perf_counter()
        programs[choice] = lower(model, inputs, backends=CHOICES[choice])
        seconds[choice] = time.perf_counter() - start
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        alternatives = {
            choice: native(program.buffer, inputs, count) for choice, program in programs.items()
        }
        alternatives |= peers.alternatives(others, model, inputs, count) if others else {}
        alternatives["eager"] = timed(lambda: model(*inputs))
        with torch.no_grad():
            timings = interleave({n: warmed_up(run) for n, run in alternatives.items()}, rounds)
        fastest = min(others, key=lambda peer: timings[peer].median_ms) if others else None
        rows += [
            {
                "model": name,
                "threads": count,
                "backends": choice,
                "ms": timing.median_ms,
                "spread": timing.spread,
                "over_xnnpack": ratio(timing, timings["xnnpack"]),
                "over_eager": ratio(timing, timings["eager"]),
                "over_peers": ratio(timing, timings[fastest]) if fastest else None,
                "lowering_s": seconds.get(choice),
            }
            for choice, timing in timings.items()
        ]
    return rows


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    peer = "" if row["over_peers"] is None else f"{row['over_peers']:.2f}"
    return (
        f"{row['model']:<18} {row['threads']:>7} {row['backends']:<14} {row['ms']:>9.2f} "
        f"{row['spread']:>6.0%} {row['over_xnnpack']:>9.2f} {row['over_eager']:>8.2f} {peer:>8}"
    )


def missed_targets(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every target that was measured and missed."""
    missed = []
    for row in rows:
        for (model, choice, against), target in TARGETS.items():
            value = row[f"over_{against}"]
            if (row["model"], row["backends"]) != (model, choice) or value is None:
                continue
            if against == "peers" and row["threads"] != 1:
                continue
            if value > target:
                missed.append(f"{show(row)}: {value:.2f} x {against}, expected at most {target}")
    return missed


def main() -> int:
    """Runs the benchmark."""
    options = parser(__doc__)
    options.add_argument("models", nargs="*", default=["mobilenet_v2", "vit_tiny"])
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--backends", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    options.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    args = options.parse_args()
    installed = [peer for peer in args.peers if not peers.missing(peer)]
    for peer in set(args.peers) - set(installed):
        print(f"{peer} is left out: pip install {' '.join(peers.missing(peer))}")
    print(
        f"{'model':<18} {'threads':>7} {'backends':<14} {'ms':>9} {'+-':>6} {'/xnnpack':>9} "
        f"{'/eager':>8} {'/peers':>8}"
    )
    rows: list[dict[str, Any]] = []
    for name in args.models:
        for row in measure(name, args.backends, installed, args.threads, 12 if args.quick else 60):
            rows.append(row)
            print(show(row), flush=True)
    missed = missed_targets(rows)
    if "vit_tiny" in args.models and not installed:
        missed.append("vit_tiny was compared with no other runtime: none is installed")
    return conclude(args, {"rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
