"""What it costs to call a delegate, and to hand over from one backend to the other.

    python benchmarks/handover.py [--threads 1 2] [--quick] [--json FILE] [--check]

A chain of equal layers runs as one call of ggml, as one of XNNPACK, as one call of ggml for every
layer, and with the backends taking turns. "per call" is the time of the many calls over that of
one, per additional call; "per switch" the time of the alternating chain over the mean of the two
whole ones, per switch. The second half is measured beside a process that keeps one core busy.
--check exits with 1 when a call of ggml on tiny tensors costs more than 5 us on an idle machine.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import interleave
from benchmarks.running import batched, conclude, native, parser
from orchestrator import OrchestratorPartitioner
from orchestrator.dim_orders.channels_last import ChannelsLastPass
from orchestrator.edge import edge_compile_config
from orchestrator.planner import CostGraph, Plan, Segment, price_plan

LAYERS = 50
TARGET_CALL_US = 5.0


class Chain(nn.Module):
    """Equal layers, one after another."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Takes the layers."""
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Runs them."""
        for layer in self.layers:
            x = layer(x)
        return x


def chains() -> dict[str, tuple[nn.Module, Tensor]]:
    """Name -> chain and its input."""
    torch.manual_seed(0)
    image = torch.randn(1, 32, 28, 28)
    return {
        "tiny, [1, 16]": (Chain([nn.Linear(16, 16) for _ in range(LAYERS)]), torch.randn(1, 16)),
        "image, [1, 32, 28, 28]": (_convolutions(), image),
        "image, channels-last": (_convolutions(), image.to(memory_format=torch.channels_last)),
    }


def _convolutions() -> nn.Module:
    return Chain([nn.Conv2d(32, 32, 1) for _ in range(LAYERS)])


def lowered(model: nn.Module, x: Tensor, backends: Sequence[str], *, calls: int) -> bytes:
    """The program whose layers go to `backends` in turn, in `calls` delegate calls."""

    def solver(graph: CostGraph) -> Plan:
        atoms = [atom.id for atom in graph.atoms]
        # Conversions of dim orders at both ends go with the layers next to them.
        first = len(atoms) > LAYERS
        if not LAYERS <= len(atoms) <= LAYERS + 2:
            raise RuntimeError(f"{len(atoms)} atoms in a chain of {LAYERS} layers")
        size = LAYERS // calls
        ends = [first + call * size for call in range(1, calls)]
        segments = [
            Segment(backends[call % len(backends)], tuple(atoms[start:end]))
            for call, (start, end) in enumerate(zip([0, *ends], [*ends, len(atoms)], strict=True))
        ]
        return price_plan(graph, segments, solver="given")

    partitioner = OrchestratorPartitioner(sorted(set(backends)), solver=solver)
    edge = to_edge_transform_and_lower(
        torch.export.export(model.eval(), (x,)),
        transform_passes=[ChannelsLastPass(partitioner.backends)],
        partitioner=[partitioner],
        compile_config=edge_compile_config(),
    )
    return bytes(edge.to_executorch().buffer)


@contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """Keeps one core busy meanwhile, if wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(
    name: str, programs: dict[str, bytes], x: Tensor, threads: int, busy: bool, rounds: int
) -> dict[str, Any]:
    """One row."""
    with busy_process(busy):
        timings = interleave(
            {
                choice: batched(native(program, (x,), threads), 2.0)
                for choice, program in programs.items()
            },
            rounds,
        )
    us = {choice: timing.median_ms * 1e3 for choice, timing in timings.items()}
    return {
        "chain": name,
        "threads": threads,
        "busy": busy,
        "us": us,
        "spread": {choice: timing.spread for choice, timing in timings.items()},
        "per_call_us": (us["ggml, one by one"] - us["ggml"]) / (LAYERS - 1),
        "per_switch_us": (us["in turn"] - (us["ggml"] + us["xnnpack"]) / 2) / (LAYERS - 1),
    }


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    machine = "busy" if row["busy"] else "idle"
    times = " ".join(
        f"{time:>9.1f} {row['spread'][name]:>4.0%}" for name, time in row["us"].items()
    )
    return (
        f"{row['chain']:<24}{row['threads']:>7} {machine:<5}{times} "
        f"{row['per_call_us']:>9.2f} {row['per_switch_us']:>11.2f}"
    )


def main() -> int:
    """Runs the benchmark."""
    options = parser(__doc__)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = options.parse_args()
    heads = " ".join(
        f"{name:>9} {'+-':>4}" for name in ("ggml us", "xnnpack", "one by 1", "in turn")
    )
    print(f"{'chain':<24}{'threads':>7} {'':<5}{heads} {'per call':>9} {'per switch':>11}")
    rows = []
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
    for name, (model, x) in chains().items():
        programs = {
            "ggml": lowered(model, x, ["ggml"], calls=1),
            "xnnpack": lowered(model, x, ["xnnpack"], calls=1),
            "ggml, one by one": lowered(model, x, ["ggml"], calls=LAYERS),
            "in turn": lowered(model, x, ["ggml", "xnnpack"], calls=LAYERS),
        }
        for busy in (False, True):
            for threads in args.threads:
                row = measure(name, programs, x, threads, busy, 8 if args.quick else 40)
                rows.append(row)
                print(show(row), flush=True)
    missed = [
        f"{show(row)}: expected at most {TARGET_CALL_US} us per call"
        for row in rows
        if row["chain"].startswith("tiny")
        and not row["busy"]
        and row["per_call_us"] > TARGET_CALL_US
    ]
    return conclude(args, {"rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
