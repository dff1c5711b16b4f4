"""Whole models: each choice of backends against XNNPACK alone and eager PyTorch.

    python benchmarks/models.py [MODEL ...] [--threads 1 2] [--quick] [--json FILE] [--check]

All alternatives of a model run in turn in one process; the ratios are medians over rounds.
--check exits with 1 when ggml alone takes more than 1.5 times XNNPACK's time on MobileNetV2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import interleave, ratio
from examples.models import MODELS
from ggml_delegate.native import NativeProgram
from orchestrator import lower

CHOICES = {"xnnpack": ["xnnpack"], "ggml": ["ggml"], "ggml+xnnpack": ["ggml", "xnnpack"]}
TARGET_GGML_OVER_XNNPACK = 1.5


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def native(buffer: bytes, inputs: tuple[Any, ...], threads: int) -> Callable[[], float]:
    """A function that runs a program once and returns its time in milliseconds."""
    program = NativeProgram(buffer, num_threads=threads)
    return lambda: program.time("forward", inputs, runs=1, warmup=0)[0] / 1e6


def measure(name: str, threads: list[int], rounds: int) -> list[dict[str, Any]]:
    """One row per thread count and alternative."""
    spec = MODELS[name]
    model, inputs = spec.build(), spec.inputs(1, 0)
    programs, seconds = {}, {}
    for choice, backends in CHOICES.items():
        start = time.perf_counter()
        programs[choice] = lower(model, inputs, backends=backends)
        seconds[choice] = time.perf_counter() - start
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        alternatives = {
            choice: native(program.buffer, inputs, count) for choice, program in programs.items()
        }
        with torch.no_grad():
            alternatives["eager"] = lambda: timed(lambda: model(*inputs))
            timings = interleave(alternatives, rounds)
        rows += [
            {
                "model": name,
                "threads": count,
                "backends": choice,
                "ms": timing.median_ms,
                "spread": timing.spread,
                "over_xnnpack": ratio(timing, timings["xnnpack"]),
                "over_eager": ratio(timing, timings["eager"]),
                "lowering_s": seconds.get(choice),
            }
            for choice, timing in timings.items()
        ]
    return rows


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    return (
        f"{row['model']:<18} {row['threads']:>7} {row['backends']:<14} {row['ms']:>9.2f} "
        f"{row['spread']:>6.0%} {row['over_xnnpack']:>9.2f} {row['over_eager']:>8.2f}"
    )


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mobilenet_v2"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="write the rows to a file")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()
    print(
        f"{'model':<18} {'threads':>7} {'backends':<14} {'ms':>9} {'+-':>6} {'/xnnpack':>9} "
        f"{'/eager':>8}"
    )
    rows: list[dict[str, Any]] = []
    for name in options.models:
        for row in measure(name, options.threads, 12 if options.quick else 60):
            rows.append(row)
            print(show(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    missed = [
        row
        for row in rows
        if row["model"] == "mobilenet_v2"
        and row["backends"] == "ggml"
        and row["over_xnnpack"] > TARGET_GGML_OVER_XNNPACK
    ]
    for row in missed:
        print(f"missed: {show(row)}")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
