"""Peak memory and load time against file size, for a small model and one of 350 MB.

    python benchmarks/memory.py [MODEL ...] [--rounds 5] [--quick] [--json FILE] [--check]

Each measurement is a fresh process that maps the file, loads the method and runs it once; the
choices of backends take turns, the file is in the page cache. Memory is the process's peak beyond
what it had before it opened the file; "private" is the part of what it holds at the end that is
not the mapped file: packed or copied weights, and activations.
--check exits with 1 when ggml loads the large model in more than 1.2 times XNNPACK's time, or peaks
at more than 1.15 times the file's size.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import conclude, parser

CHOICES = {"ggml": ["ggml"], "xnnpack": ["xnnpack"], "ggml+xnnpack": ["ggml", "xnnpack"]}
SMALL, LARGE = "mobilenet_v2", "vit_b_16"
TARGET_LOAD = 1.2
TARGET_PEAK = 1.15

# Imports no torch: its memory would hide what is measured.
_CHILD = """
import json, sys, time
import numpy as np
from orchestrator.native import NativeProgram

def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key + ":"))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # resets the peak
before, private = memory("VmHWM"), memory("RssAnon")
start = time.perf_counter_ns()
program = NativeProgram(sys.argv[1], num_threads=1)
info = program.method("forward")
loaded = time.perf_counter_ns()
inputs = [np.ones(i.sizes, i.dtype).astype(i.dtype) for i in info.inputs]
program.run("forward", inputs)
ran = time.perf_counter_ns()
print(json.dumps({
    "load_ms": (loaded - start) / 1e6,
    "first_run_ms": (ran - loaded) / 1e6,
    "peak_bytes": memory("VmHWM") - before,
    "private_bytes": memory("RssAnon") - private,
}))
"""


def run_child(path: Path) -> dict[str, float]:
    """Loads and runs a program in a new process."""
    command = [sys.executable, "-c", _CHILD, str(path)]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent
    )
    if result.returncode != 0:
        raise RuntimeError(f"loading {path} failed:\n{result.stderr}")
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def save(name: str, folder: Path) -> dict[str, Path]:
    """Lowers a model to one file per choice of backends."""
    from examples.models import MODELS
    from orchestrator import lower

    spec = MODELS[name]
    model, inputs = spec.build(), spec.inputs(1, 0)
    paths = {}
    for choice, backends in CHOICES.items():
        paths[choice] = folder / f"{name}-{choice}.pte"
        lower(model, inputs, backends=backends).save(paths[choice])
    return paths


def measure(name: str, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """One row per choice of backends; medians over the rounds."""
    paths = save(name, folder)
    figures: dict[str, list[dict[str, float]]] = {choice: [] for choice in paths}
    for number in range(rounds + 1):
        for choice, path in paths.items():
            result = run_child(path)
            if number > 0:  # the first brings the file into the page cache
                figures[choice].append(result)
    rows = []
    for choice, path in paths.items():
        row: dict[str, Any] = {"model": name, "backends": choice}
        row["file_bytes"] = path.stat().st_size
        for key in figures[choice][0]:
            row[key] = statistics.median(result[key] for result in figures[choice])
        row["load_over_xnnpack"] = statistics.median(
            ours["load_ms"] / theirs["load_ms"]
            for ours, theirs in zip(figures[choice], figures["xnnpack"], strict=True)
        )
        row["peak_over_file"] = row["peak_bytes"] / row["file_bytes"]
        rows.append(row)
    return rows


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    return (
        f"{row['model']:<14}{row['backends']:<14}{row['file_bytes'] / 1e6:>9.1f}"
        f"{row['load_ms']:>9.2f}{row['load_over_xnnpack']:>10.2f}{row['first_run_ms']:>10.1f}"
        f"{row['peak_bytes'] / 1e6:>9.1f}{row['peak_over_file']:>7.2f}"
        f"{row['private_bytes'] / 1e6:>10.1f}"
    )


def main() -> int:
    """Runs the benchmark."""
    options = parser(__doc__)
    options.add_argument("models", nargs="*", default=[SMALL, LARGE])
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    print(
        f"{'model':<14}{'backends':<14}{'file MB':>9}{'load ms':>9}{'/xnnpack':>10}"
        f"{'1st run':>10}{'peak MB':>9}{'/file':>7}{'private':>10}"
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            for row in measure(name, 3 if args.quick else args.rounds, Path(folder)):
                rows.append(row)
                print(show(row), flush=True)
    missed = []
    for row in rows:
        if (row["model"], row["backends"]) != (LARGE, "ggml"):
            continue
        if row["load_over_xnnpack"] > TARGET_LOAD:
            missed.append(f"{show(row)}: expected to load in {TARGET_LOAD} x XNNPACK's time")
        if row["peak_over_file"] > TARGET_PEAK:
            missed.append(f"{show(row)}: expected to peak at {TARGET_PEAK} x the file's size")
    return conclude(args, {"rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
