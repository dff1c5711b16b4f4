"""One command from a PyTorch MobileNetV2 to one .pte that runs on ggml and XNNPACK together.

Lowers the model, saves the .pte, runs two photographs through it in Python and one through the
native runner, and compares all with eager PyTorch. Exits with 1 if a check fails.

    python examples/demo.py [FOLDER] [--runs N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from _ggml_delegate import RUNNER
from models import MODELS  # examples/models, beside this file
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import orchestrator
from ggml_delegate.native import NativeProgram

BACKENDS = {"ggml": "GgmlBackend", "xnnpack": "XnnpackBackend"}
PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # both come with scikit-learn
TOLERANCE = 1e-4
SENSITIVITY = 100 * TOLERANCE
SIZE = 224


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


def photograph(name: str) -> Tensor:
    """A photograph as the model takes it: the middle square, normalised, [1, 3, 224, 224]."""
    image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) / 255
    mean = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, per channel
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    normalised = (pixels - mean) / deviation
    return torch.from_numpy(normalised.transpose(2, 0, 1)[None].copy())


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


def print_top5(logits: Tensor) -> None:
    """Prints the five best classes."""
    values, indices = logits.softmax(-1)[0].topk(5)
    print("top 5 (class indices; the weights are seeded random numbers, so they mean nothing):")
    for value, index in zip(values.tolist(), indices.tolist(), strict=True):
        print(f"  class {index:4}  {100 * value:5.1f} %")


def demo(folder: Path, runs: int, threads: int) -> list[str]:
    """Runs everything and returns the checks that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    model = MODELS["mobilenet_v2"].build()
    photos = [photograph(name) for name in PHOTOGRAPHS]
    with torch.no_grad():
        expected = [model(photo) for photo in photos]

    # Every backend gets what it is the first to take, so that both are seen at work.
    lowered = orchestrator.lower(
        model, (photos[0],), backends=list(BACKENDS), strategy="greedy", tune="off"
    )
    path = folder / "mobilenet_v2.pte"
    lowered.save(path)
    print(orchestrator.render_text(lowered.report))
    print(f"saved {path}, {path.stat().st_size / 1e6:.1f} MB\n")

    program = NativeProgram(path, num_threads=threads)
    native, native_ms = run_natively(path, photos[0], folder, runs, threads)
    python_ns = program.time("forward", [photos[0]], runs=runs)
    print_top5(native)

    print("\nchecks:")
    checks = Checks()
    for name, backend_id in BACKENDS.items():
        checks.add(backend_id in program.backends(), f"the .pte has a part that runs on {name}")
    for name, photo, logits in zip(PHOTOGRAPHS, photos, expected, strict=True):
        checks.close(lowered(photo), logits, f"Python runtime, {name}, against eager PyTorch")
    checks.close(native, expected[0], f"native runner, {PHOTOGRAPHS[0]}, against eager PyTorch")
    change = difference(expected[1], expected[0])
    checks.add(
        change >= SENSITIVITY,
        f"the other photograph changes the output by {change:.1e} (at least {SENSITIVITY:g})",
    )

    print(f"\nmedian latency of {runs} runs:")
    print(f"  native runner  {native_ms:8.2f} ms")
    print(f"  Python runtime {statistics.median(python_ns) / 1e6:8.2f} ms")
    print(f"  eager PyTorch  {time_eager(model, photos[0], runs):8.2f} ms")
    checks.failures += choose(model, photos[0], expected[0], folder / "costs.sqlite", threads)
    return checks.failures


def choose(
    model: nn.Module, photo: Tensor, expected: Tensor, table: Path, threads: int
) -> list[str]:
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
    checks = Checks()
    checks.close(tuned(photo), expected, "the chosen program against eager PyTorch")
    return checks.failures


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
    print("\nall checks passed: one .pte, both backends")
    return 0


if __name__ == "__main__":
    sys.exit(main())
