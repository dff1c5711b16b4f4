"""One command from a PyTorch EfficientNet-Lite0 to one .pte that runs on ggml and XNNPACK together.

Lowers the network, which was trained on ImageNet, saves the .pte, shows it four photographs in
Python and one in the native runner, and compares all with eager PyTorch. Then has the fastest split
found out, and asks that what the photographs show. Exits with 1 if anything is wrong.

    python examples/demo.py [FOLDER] [--runs N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from _ggml_delegate import RUNNER
from real.image_classes import NETWORK, PHOTOGRAPHS, best, image, is_right  # beside this file
from torch import Tensor, nn

import orchestrator
from orchestrator.native import NativeProgram

BACKENDS = {"ggml": "GgmlBackend", "xnnpack": "XnnpackBackend"}
TOLERANCE = 1e-4
SENSITIVITY = 100 * TOLERANCE


@dataclass
class Checks:
    """What was checked and whether it held."""

    failures: list[str] = field(default_factory=list)

    def add(self, passed: bool, text: str) -> None:
        """Prints one check and remembers it if it failed."""
        print(f"  {'ok  ' if passed else 'FAIL'}  {text}")
        if not passed:
            self.failures.append(text)

    def close(self, actual: Tensor, expected: Tensor, what: str) -> None:
        """Checks the largest absolute error as a fraction of the expected output's scale."""
        error = difference(actual, expected)
        passed = error <= TOLERANCE  # false for NaN
        self.add(passed, f"{what}: off by {error:.1e} of the output's scale (limit {TOLERANCE:g})")


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `expected`."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def run_natively(
    model: Path, photo: Tensor, folder: Path, runs: int, threads: int
) -> tuple[Tensor, float]:
    """Runs the .pte in the native runner, a program without Python.

    Returns:
        The output and the median latency in milliseconds.
    """
    source, result, report = folder / "photo.npy", folder / "logits.npy", folder / "run.json"
    np.save(source, photo.numpy())
    flags = {"--input": source, "--output": result, "--json": report, "--warmup": 1}
    flags |= {"--runs": runs, "--threads": threads}
    arguments = [str(part) for flag in flags.items() for part in flag]
    subprocess.run([str(RUNNER), str(model), *arguments], check=True, stdout=subprocess.DEVNULL)
    latency = json.loads(report.read_text())["call_us"]["p50"]
    return torch.from_numpy(np.load(result)), latency / 1000


def time_eager(model: nn.Module, photo: Tensor, runs: int) -> float:
    """Median latency of the PyTorch model in milliseconds."""
    elapsed_ns = []
    with torch.no_grad():
        for _ in range(runs + 1):
            start = time.perf_counter_ns()
            model(photo)
            elapsed_ns.append(time.perf_counter_ns() - start)
    return statistics.median(elapsed_ns[1:]) / 1e6


def demo(folder: Path, runs: int, threads: int) -> list[str]:
    """Runs everything and returns the checks that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    model = NETWORK.build()["class"].model
    photos = {name: image(name) for name in PHOTOGRAPHS}
    first, second, *_ = photos
    with torch.no_grad():
        expected = {name: model(photo) for name, photo in photos.items()}

    # Every backend gets what it is the first to take, so that both are seen at work.
    lowered = orchestrator.lower(
        model, (photos[first],), backends=list(BACKENDS), strategy="greedy", tune="off"
    )
    path = folder / "efficientnet_lite0.pte"
    lowered.save(path)
    print(orchestrator.render_text(lowered.report))
    print(f"saved {path}, {path.stat().st_size / 1e6:.1f} MB\n")

    program = NativeProgram(path, num_threads=threads)
    native, native_ms = run_natively(path, photos[first], folder, runs, threads)
    python_ns = program.time("forward", [photos[first]], runs=runs)

    print("checks:")
    checks = Checks()
    for name, backend_id in BACKENDS.items():
        checks.add(backend_id in program.backends(), f"the .pte has a part that runs on {name}")
    for name, photo in photos.items():
        checks.close(lowered(photo), expected[name], f"Python runtime, {name}, against eager")
    checks.close(native, expected[first], f"native runner, {first}, against eager")
    change = difference(expected[second], expected[first])
    checks.add(
        change >= SENSITIVITY,
        f"another photograph changes the output by {change:.1e} (at least {SENSITIVITY:g})",
    )

    print(f"\nmedian latency of {runs} runs:")
    print(f"  native runner  {native_ms:8.2f} ms")
    print(f"  Python runtime {statistics.median(python_ns) / 1e6:8.2f} ms")
    print(f"  eager PyTorch  {time_eager(model, photos[first], runs):8.2f} ms")
    tuned = choose(model, photos[first], folder / "costs.sqlite", threads)
    ask(tuned, photos, expected, checks)
    return checks.failures


def ask(
    run: Callable[[Tensor], Tensor],
    photos: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    checks: Checks,
) -> None:
    """Asks the chosen program what is in the photographs, and prints its answers beside eager's."""
    print("what is in these photographs?")
    for name, photo in photos.items():
        logits = run(photo).clone()
        print(f"  {name}, {PHOTOGRAPHS[name][0]}")
        print(f"    the chosen program: {best(logits)}")
        print(f"    eager PyTorch:      {best(expected[name])}")
        checks.close(logits, expected[name], "the chosen program against eager")
        checks.add(is_right(name, logits), "the answer is right")


def choose(
    model: nn.Module, photo: Tensor, table: Path, threads: int
) -> orchestrator.LoweredProgram:
    """Has the fastest split found out by measuring, and prints what it was chosen over."""
    print("\nlooking for the fastest split on this machine (remembered for the next time) ...")
    tuned = orchestrator.lower(
        model,
        (photo,),
        backends=list(BACKENDS),
        tune="measure",
        threads=threads or None,
        cost_table=table,
        progress=show_progress if sys.stderr.isatty() else None,
    )
    plan = tuned.report.methods[0].plan
    print(f"\n  {'plan':<28} {'predicted ms':>12} {'measured ms':>12}")
    for name, predicted, measured in [
        ("chosen", plan.predicted_ns, plan.measured_ns),
        *((each.name, each.predicted_ns, each.measured_ns) for each in plan.alternatives),
    ]:
        if measured is not None:
            print(f"  {name:<28} {predicted / 1e6:>12.2f} {measured / 1e6:>12.2f}")
    print(f"  {plan.notes[-1]}\n")
    return tuned


def show_progress(event: orchestrator.TuneEvent) -> None:
    """Keeps one line on the terminal up to date."""
    left = "" if event.remaining_s is None else f", {event.remaining_s:.0f} s left"
    print(f"\r  {event.stage}: {event.done} of {event.total}{left}   ", end="", file=sys.stderr)


def main() -> int:
    """Parses the command line and runs the demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parents[1] / "build" / "demo"
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="where files go")
    parser.add_argument("--runs", type=int, default=20, help="timed runs (default: 20)")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0 is one per processor")
    options = parser.parse_args()
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    failures = demo(options.folder, options.runs, options.threads)
    if failures:
        print(f"\n{len(failures)} checks failed")
        return 1
    print("\nall checks passed: one .pte, both backends, and every answer is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
