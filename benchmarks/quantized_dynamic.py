"""Transformers with int8 activations and int8 or int4 weights, beside each backend alone.

Weights are quantized by torchao: "8da4w" in groups of 32, "8da8w" by row; activations in every run,
by row. "best alone" is the faster of this project's plans for one backend, "ExecuTorch" its own
flow with XNNPACK. "off" is the largest difference from the quantized model in eager PyTorch, over
the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    PerAxis,
    PerGroup,
    quantize_,
)

from benchmarks.deciding import first_alike, ratio_spread, told_apart
from benchmarks.interleave import ratio
from benchmarks.quantized_static import executorch_alone
from benchmarks.repeats import in_repeats
from benchmarks.running import geometric_mean
from examples.models import MODELS
from orchestrator import lower
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.options import DEFAULT_BACKENDS

MOST_TIME = 1.02
LEAST_GAIN = 1.3
GAINS_OF = ("vit_tiny", "bert_mini", "bert_base")
OURS, THEIRS = "default plan", "ExecuTorch"
SCHEMES: dict[str, Callable[[], Any]] = {
    "8da4w": lambda: Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    ),
    "8da8w": lambda: Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int8, weight_granularity=PerAxis(0)
    ),
}
# Models of tokens with a prompt of this length, and with one token.
PROMPT = 128
CASES: dict[str, tuple[str, int | None]] = {
    **{name: (name, None) for name in GAINS_OF},
    "llama, prompt": ("llama_4_layers", PROMPT),
    "llama, token": ("llama_4_layers", 1),
    "qwen3, prompt": ("qwen3_4_layers", PROMPT),
    "qwen3, token": ("qwen3_4_layers", 1),
}
NAMES = tuple(CASES)


@dataclass(frozen=True)
class Row:
    """One model: times in ms, sizes in bytes, errors over the largest value."""

    model: str
    scheme: str
    threads: int
    calls: int
    ours_ms: float
    alone: str
    alone_ms: float
    theirs_ms: float
    to_alone: float
    gain: float
    spread: float
    ours_bytes: int
    theirs_bytes: int
    error: float


def _case(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    model, length = CASES[name]
    inputs = MODELS[model].inputs(1, 0)
    if length is not None:
        repeated = inputs[0].repeat(1, -(-length // inputs[0].shape[1]))
        inputs = (repeated[:, :length].contiguous(),)
    return MODELS[model].build().eval(), inputs


def measure(name: str, threads: Sequence[int], seconds: float) -> list[Row]:
    """One row per scheme and number of threads."""
    return [row for scheme in SCHEMES for row in _measure_scheme(name, scheme, threads, seconds)]


def _measure_scheme(name: str, scheme: str, threads: Sequence[int], seconds: float) -> list[Row]:
    model, inputs = _case(name)
    quantize_(model, SCHEMES[scheme]())
    with torch.no_grad(), repeated_work_spared():
        want = tree_leaves(model(*inputs))[0]
        theirs = executorch_alone(model, inputs)
    rows = []
    for count in threads:
        plan = lower(model, inputs, tune="off", threads=count)
        programs = {OURS: plan} | {
            backend: lower(model, inputs, backends=[backend], tune="off", threads=count)
            for backend in DEFAULT_BACKENDS
        }
        alike = first_alike(programs)
        buffers = {label: programs[label].buffer for label in dict.fromkeys(alike.values())}
        found = in_repeats({THEIRS: theirs, **buffers}, inputs, count, seconds)
        best = min(DEFAULT_BACKENDS, key=lambda backend: found[alike[backend]].median_ms)
        pair = found[OURS], found[alike[best]]
        if alike[best] != OURS:
            both = {OURS: buffers[OURS], best: buffers[alike[best]]}
            pair = told_apart(both, pair, inputs, count, MOST_TIME)
        got = tree_leaves(plan(*inputs))[0]
        rows.append(
            Row(
                model=name,
                scheme=scheme,
                threads=count,
                calls=len(plan.plan["forward"].partitions),
                ours_ms=found[OURS].median_ms,
                alone=best,
                alone_ms=pair[1].median_ms,
                theirs_ms=found[THEIRS].median_ms,
                to_alone=ratio(*pair),
                gain=ratio(found[THEIRS], found[OURS]),
                spread=ratio_spread(*pair),
                ours_bytes=len(plan.buffer),
                theirs_bytes=len(theirs),
                error=float((got - want).abs().max() / want.abs().max()),
            )
        )
    return rows


HEADER = (
    f"{'model':<15} {'scheme':<6} {'th':>2} {'calls':>5} {'ms':>8} {'best alone':>16} "
    f"{'ratio':>6} {'+-':>6} {'ExecuTorch':>10} {'gain':>6} {'MB':>7} {'theirs':>7} {'off':>8}"
)


def show(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.model:<15} {row.scheme:<6} {row.threads:>2} {row.calls:>5} {row.ours_ms:>8.3f} "
        f"{row.alone:>8}{row.alone_ms:>8.3f} {row.to_alone:>6.3f} {row.spread:>6.3f} "
        f"{row.theirs_ms:>10.3f} {row.gain:>6.2f} {row.ours_bytes / 1e6:>7.2f} "
        f"{row.theirs_bytes / 1e6:>7.2f} {row.error:>8.1e}"
    )


def missed_by(rows: Sequence[Row]) -> list[str]:
    """Which targets are missed."""
    missed = [
        f"{row.model}, {row.scheme}, {row.threads} threads: {row.to_alone:.3f} times {row.alone}"
        for row in rows
        if row.to_alone > MOST_TIME
    ]
    gains = [row.gain for row in rows if row.model in GAINS_OF]
    if gains and geometric_mean(gains) < LEAST_GAIN:
        missed.append(f"{geometric_mean(gains):.2f} times as fast as ExecuTorch's own flow")
    return missed
