"""Layers whose weights are integers and whose activations are floats: one token, beside float32.

Eight layers of 4096 x 4096, more than caches hold, so that a token takes as long as it takes to
read the weights. "GB/s" is the file over the time; "of memory" compares it with the faster of the
float32 program and a sum over as many bytes. "off" is the largest difference from the quantized
model in eager PyTorch, over the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_

from benchmarks.interleave import Timing, interleave, ratio
from benchmarks.running import native, timed, warmed_up
from orchestrator import lower

WIDTH, DEPTH = 4096, 8
SCHEMES: dict[str, tuple[Callable[[], Any], float]] = {
    "int8": (lambda: IntxWeightOnlyConfig(torch.int8, PerAxis(0)), 1 + 4 / WIDTH),
    "int8, groups of 128": (lambda: IntxWeightOnlyConfig(torch.int8, PerGroup(128)), 1 + 4 / 128),
    "int4, groups of 128": (lambda: IntxWeightOnlyConfig(torch.int4, PerGroup(128)), 0.5 + 4 / 128),
    "int4, groups of 32": (lambda: IntxWeightOnlyConfig(torch.int4, PerGroup(32)), 0.5 + 4 / 32),
}
NAMES = tuple(SCHEMES)
MOST_BYTES = 1.05
LEAST_OF_MEMORY = 0.8
MOST_ERROR = 1e-5
ROUNDS_PER_SECOND = 4


@dataclass(frozen=True)
class Row:
    """One scheme: times in ms, sizes in bytes, rates in bytes per second."""

    scheme: str
    threads: int
    ours_ms: float
    float_ms: float
    gain: float
    spread: float
    rate: float
    memory_rate: float
    ours_bytes: int
    packed_bytes: float
    error: float


def _layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH))).eval()


def measure(name: str, threads: Sequence[int], seconds: float) -> list[Row]:
    """One row per number of threads."""
    x = torch.randn(1, WIDTH)
    make, bytes_per_element = SCHEMES[name]
    return [_measure(name, make(), bytes_per_element, x, count, seconds) for count in threads]


def _measure(
    name: str, config: Any, bytes_per_element: float, x: torch.Tensor, threads: int, seconds: float
) -> Row:
    model = _layers()
    floats = lower(model, (x,), tune="off", threads=threads)
    quantize_(model, config)
    plan = lower(model, (x,), tune="off", threads=threads)
    torch.set_num_threads(threads)
    read = torch.zeros(len(plan.buffer) // 4)
    runs = {
        "ours": native(plan.buffer, [x], threads),
        "float": native(floats.buffer, [x], threads),
        "sum": timed(read.sum),
    }
    rounds = max(4, int(seconds * ROUNDS_PER_SECOND))
    found = interleave({what: warmed_up(run) for what, run in runs.items()}, rounds)
    with torch.no_grad():
        want, got = model(x), plan(x)
    rates = (
        _rate(len(floats.buffer), found["float"]),
        _rate(read.numel() * read.element_size(), found["sum"]),
    )
    return Row(
        scheme=name,
        threads=threads,
        ours_ms=found["ours"].median_ms,
        float_ms=found["float"].median_ms,
        gain=ratio(found["float"], found["ours"]),
        spread=found["ours"].spread,
        rate=_rate(len(plan.buffer), found["ours"]),
        memory_rate=max(rates),
        ours_bytes=len(plan.buffer),
        packed_bytes=bytes_per_element * WIDTH * WIDTH * DEPTH,
        error=float((got - want).abs().max() / want.abs().max()),
    )


def _rate(count: int, timing: Timing) -> float:
    return count / timing.median_ms * 1e3


HEADER = (
    f"{'weights':<20} {'th':>2} {'ms':>8} {'float32':>8} {'gain':>6} {'+-':>6} {'GB/s':>6} "
    f"{'of memory':>9} {'MB':>7} {'/packed':>7} {'off':>8}"
)


def show(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.scheme:<20} {row.threads:>2} {row.ours_ms:>8.2f} {row.float_ms:>8.2f} "
        f"{row.gain:>6.2f} {row.spread:>6.3f} {row.rate / 1e9:>6.1f} "
        f"{row.rate / row.memory_rate:>9.2f} {row.ours_bytes / 1e6:>7.1f} "
        f"{row.ours_bytes / row.packed_bytes:>7.3f} {row.error:>8.1e}"
    )


def missed_by(rows: Sequence[Row]) -> list[str]:
    """Which targets are missed."""
    missed = []
    for row in rows:
        where = f"{row.scheme}, {row.threads} threads"
        if row.ours_bytes > MOST_BYTES * row.packed_bytes:
            missed.append(f"{where}: a file of {row.ours_bytes / row.packed_bytes:.3f} of packed")
        if row.rate < LEAST_OF_MEMORY * row.memory_rate:
            missed.append(f"{where}: {row.rate / row.memory_rate:.2f} of what memory gives")
        if row.error > MOST_ERROR:
            missed.append(f"{where}: off by {row.error:.1e}")
    return missed
