"""Statically quantized CNNs: this project's default plan beside ExecuTorch alone with XNNPACK.

Models are quantized to int8 by PT2E with ExecuTorch's quantizer, per channel. "float" is the same
model in float32 with this project's default plan. "steps" is the largest difference from the
converted model in eager PyTorch, in steps of the output's quantization.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from benchmarks.deciding import ratio_spread
from benchmarks.interleave import ratio
from benchmarks.repeats import in_repeats
from examples.models import MODELS
from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.graph.quantized import is_dequantize, quantization
from orchestrator.native import NativeProgram

NAMES = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "unet",
)
MOST_TIME = 1.02
MOST_BYTES = 1.1
OURS, THEIRS, FLOAT = "default plan", "ExecuTorch alone", "float32"


@dataclass(frozen=True)
class Row:
    """One model: times in ms, sizes in bytes, errors in steps of the output's quantization."""

    model: str
    threads: int
    calls: int
    ours_ms: float
    theirs_ms: float
    float_ms: float
    time_ratio: float
    ratio_spread: float
    ours_bytes: int
    theirs_bytes: int
    ours_steps: float
    theirs_steps: float
    lowering_s: float


def output_step(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The scale of the last dequantize of a converted model."""
    scales = [
        found.scale
        for node in torch.export.export(model, inputs).graph.nodes
        if is_dequantize(node) and (found := quantization(node)) is not None
    ]
    return float(scales[-1])  # type: ignore[arg-type]


def steps(buffer: bytes, model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """How far a program is from eager, on inputs that it was not calibrated on."""
    torch.manual_seed(1)
    given = tuple(torch.randn_like(each) for each in inputs)
    with torch.no_grad():
        want = model(*given)
    (got,) = NativeProgram(buffer).run("forward", list(given), relayout=True)
    assert isinstance(got, Tensor)
    return float((got - want).abs().max()) / output_step(model, inputs)


def executorch_alone(model: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """What ExecuTorch's own XNNPACK flow makes of a model."""
    edge = to_edge_transform_and_lower(
        torch.export.export(model, inputs), partitioner=[XnnpackPartitioner()]
    )
    return bytes(edge.to_executorch().buffer)


def measure(name: str, threads: list[int], seconds: float) -> list[Row]:
    """One row per number of threads."""
    torch.manual_seed(0)
    inputs = MODELS[name].inputs(1, 0)
    net = MODELS[name].build()
    model = pt2e(net, inputs)
    theirs = executorch_alone(model, inputs)
    rows = []
    for count in threads:
        start = time.perf_counter()
        program = lower(model, inputs, tune="off", threads=count)
        lowering_s = time.perf_counter() - start
        floats = lower(net, inputs, tune="off", threads=count)
        programs = {OURS: program.buffer, THEIRS: theirs, FLOAT: floats.buffer}
        found = in_repeats(programs, inputs, count, seconds)
        rows.append(
            Row(
                model=name,
                threads=count,
                calls=len(program.plan["forward"].partitions),
                ours_ms=found[OURS].median_ms,
                theirs_ms=found[THEIRS].median_ms,
                float_ms=found[FLOAT].median_ms,
                time_ratio=ratio(found[OURS], found[THEIRS]),
                ratio_spread=ratio_spread(found[OURS], found[THEIRS]),
                ours_bytes=len(program.buffer),
                theirs_bytes=len(theirs),
                ours_steps=steps(program.buffer, model, inputs),
                theirs_steps=steps(theirs, model, inputs),
                lowering_s=lowering_s,
            )
        )
    return rows


HEADER = (
    f"{'model':<19} {'th':>2} {'calls':>5} {'ms':>8} {'alone':>8} {'float':>8} {'ratio':>6} "
    f"{'+-':>6} {'MB':>6} {'alone':>6} {'steps':>6} {'alone':>6} {'lower s':>7}"
)


def show(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.model:<19} {row.threads:>2} {row.calls:>5} {row.ours_ms:>8.2f} "
        f"{row.theirs_ms:>8.2f} {row.float_ms:>8.2f} {row.time_ratio:>6.3f} "
        f"{row.ratio_spread:>6.3f} {row.ours_bytes / 1e6:>6.2f} {row.theirs_bytes / 1e6:>6.2f} "
        f"{row.ours_steps:>6.2f} "
        f"{row.theirs_steps:>6.2f} {row.lowering_s:>7.1f}"
    )


def missed_by(rows: Sequence[Row]) -> list[str]:
    """Which targets are missed."""
    missed = []
    for row in rows:
        where = f"{row.model}, {row.threads} threads"
        if row.time_ratio > MOST_TIME:
            missed.append(f"{where}: {row.time_ratio:.3f} times ExecuTorch's time")
        if row.ours_ms > row.float_ms:
            missed.append(f"{where}: {row.ours_ms / row.float_ms:.2f} times float32's time")
        if row.ours_bytes > MOST_BYTES * row.theirs_bytes:
            ratio_of_bytes = row.ours_bytes / row.theirs_bytes
            missed.append(f"{where}: {ratio_of_bytes:.2f} times ExecuTorch's file")
        if row.ours_steps > 1 + row.theirs_steps:
            missed.append(f"{where}: {row.ours_steps:.2f} steps off")
    return missed
