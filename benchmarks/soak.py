"""Memory over long runs: inferences, tokens of a decoder with caches, and loads and unloads.

Usage: python benchmarks/soak.py [--quick] [--check] [--json FILE]

Prints the resident set at ten points of each; with --check, exits 1 when the second half of a run
grows by more than LIMIT_KB, beyond what the allocator's caches account for.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import orchestrator
from benchmarks.decode import Decoder
from examples.models.llama import Config
from orchestrator.native import NativeProgram

INFERENCES = 100_000
TOKENS, CONTEXT = 10_000, 256
LOADS = 1_000
LIMIT_KB = 512
_POINTS = 10


class SmallModel(nn.Module):
    """Every kind of memory: weights, activations, copies, indices, a dynamic batch."""

    def __init__(self) -> None:
        """Makes seeded weights."""
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 16)
        self.embedding = nn.Embedding(10, 16)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Images [N, 3, 8, 8] and indices [N] to [N, 16]."""
        x = torch.relu(self.conv(x)).mean((2, 3))
        return torch.softmax(self.linear(x) + self.embedding(indices), 1)


def rss_kb() -> int:
    """The resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


def soak(what: str, count: int, step: Callable[[int], None]) -> dict[str, object]:
    """Runs `step` `count` times and samples the resident set ten times, evenly."""
    for index in range(max(20, count // 100)):  # caches fill
        step(index)
    samples: list[int] = []
    start = time.monotonic()
    for index in range(count):
        if index % max(1, count // _POINTS) == 0:
            gc.collect()
            samples.append(rss_kb())
        step(index)
    gc.collect()
    samples.append(rss_kb())
    seconds = time.monotonic() - start
    growth = samples[-1] - samples[len(samples) // 2]
    print(f"{what}: {count:,} in {seconds:.0f} s")
    print(f"  resident set, MB: {', '.join(f'{sample / 1024:.1f}' for sample in samples)}")
    print(f"  growth over the second half: {growth} kB (limit {LIMIT_KB})")
    return {"what": what, "count": count, "rss_kb": samples, "growth_kb": growth}


def inputs(batch: int) -> list[Tensor]:
    """Seeded inputs of SmallModel."""
    generator = torch.Generator().manual_seed(batch)
    images = torch.randn(batch, 3, 8, 8, generator=generator)
    return [images, torch.randint(0, 10, (batch,), generator=generator)]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the runs")
    parser.add_argument("--check", action="store_true", help="exit 1 if memory grows")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    size = torch.export.Dim("n", min=1, max=16)
    # Greedy, so that both delegates have a part: by cost, so small a model stays on one.
    program = orchestrator.lower(
        SmallModel().eval(),
        inputs(2),
        dynamic_shapes=({0: size}, {0: size}),
        strategy="greedy",
        tune="off",
    )
    buffer = program.buffer
    divisor = 100 if options.quick else 1

    # Ten batch sizes are more than the delegate keeps graphs for, so it also drops and makes some.
    batches = [inputs(1 + index) for index in range(10)]
    native = NativeProgram(buffer)

    def infer(index: int) -> None:
        native.run("forward", batches[0 if index % 50 else index // 50 % 10])

    model = Decoder(Config(depth=2, groups=4), CONTEXT).eval().requires_grad_(False)
    token = (torch.tensor([[1]]), torch.tensor([0]))
    decoder = NativeProgram(orchestrator.lower(model, token, tune="off").buffer)

    def decode(index: int) -> None:
        position = index % CONTEXT
        if position == 0:
            decoder.reset()
        decoder.run("forward", [torch.tensor([[index % 100]]), torch.tensor([position])])

    def load(index: int) -> None:
        NativeProgram(buffer).run("forward", batches[index % 10])

    print(f"backends in the program: {', '.join(native.backends())}")
    results = [
        soak("inferences", INFERENCES // divisor, infer),
        soak("tokens of a decoder with caches", TOKENS // divisor, decode),
        soak("loads, a run each, and unloads", LOADS // divisor, load),
    ]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    grew = [result for result in results if int(str(result["growth_kb"])) > LIMIT_KB]
    return 1 if options.check and grew else 0


if __name__ == "__main__":
    sys.exit(main())
