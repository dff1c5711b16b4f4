"""One token of a decoder with key and value caches, at several lengths of the caches.

    python benchmarks/decode.py [--contexts 128 512 2048 8192] [--threads 1 2] [--quick]
        [--json FILE] [--check]

A Llama of eight layers in float32 keeps its keys and values in buffers of `context` rows, which it
updates with `index_copy`, and attends to the rows up to its position with a mask. The token stands
at the same position in all of them, so that what is left of the difference is what the length of
the caches costs. Programs run in turn in one process. "ExecuTorch" is its own flow with XNNPACK
alone; "off" is the largest difference of ours from eager PyTorch over some tokens, over the largest
value.

--check exits with 1 when a token at a context of 2048 takes more than 1.2 times what it takes at
128, or results are off by more than 1e-4.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.interleave import interleave, ratio
from benchmarks.running import conclude, native, parser, warmed_up
from examples.models.llama import Attention, Block, Config, Llama, rotate
from orchestrator import lower

CONFIG = Config(depth=8, groups=4)
CONTEXTS = (128, 512, 2048, 8192)
POSITION = 100
TOKENS = 6  # that results are compared for
ROUNDS, QUICK_ROUNDS = 60, 12
BASE, LONG = 128, 2048
MOST_FOR_LONG = 1.2
MOST_ERROR = 1e-4


class Cached(nn.Module):
    """A layer's attention for one token, whose keys and values join those of the tokens before."""

    def __init__(self, attention: Attention, config: Config, context: int) -> None:
        super().__init__()
        self.attention = attention
        sizes = (1, config.groups, context, attention.width)
        self.register_buffer("keys", torch.zeros(sizes))
        self.register_buffer("values", torch.zeros(sizes))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, position: Tensor, seen: Tensor
    ) -> Tensor:
        """[1, 1, dim] to the same; `seen` is bool [1, context]."""
        inner = self.attention
        q = rotate(inner._split(inner.query(x)), cos, sin)
        k = rotate(inner._split(inner.key(x)), cos, sin)
        self.keys.index_copy_(2, position, k)
        self.values.index_copy_(2, position, inner._split(inner.value(x)))
        y = F.scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=seen, enable_gqa=True
        )
        return inner.out(y.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """A Llama that takes one token at a time."""

    def __init__(self, config: Config, context: int) -> None:
        super().__init__()
        self.llama = Llama(config)
        self.context = context
        self.attentions = nn.ModuleList(
            Cached(block.attention, config, context) for block in self._blocks()
        )

    def _blocks(self) -> list[Block]:
        return [block for block in self.llama.blocks if isinstance(block, Block)]

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        """int64 [1, 1] and int64 [1] to float32 [1, 1, vocabulary]."""
        angles = position[:, None] * self.llama.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        seen = torch.arange(self.context)[None, :] <= position[:, None]
        x = self.llama.words(token)
        for block, attention in zip(self._blocks(), self.attentions, strict=True):
            x = x + attention(block.norm1(x), cos, sin, position, seen)
            y = block.norm2(x)
            x = x + block.down(F.silu(block.gate(y)) * block.up(y))
        return self.llama.head(self.llama.norm(x))


@dataclass(frozen=True)
class Row:
    """One context: times in ms, the caches' size in bytes."""

    context: int
    threads: int
    ours_ms: float
    executorch_ms: float
    gain: float
    over_base: float
    spread: float
    cache_bytes: int
    error: float


def _inputs(position: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([[7 * position % CONFIG.vocabulary]]), torch.tensor([position])


def _model(context: int) -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG, context).eval().requires_grad_(False)


def _error(program: Any, model: nn.Module) -> float:
    """Compare the first tokens; the caches fill on both sides."""
    worst = 0.0
    for position in range(TOKENS):
        with torch.no_grad():
            want = model(*_inputs(position))
        got = program(*_inputs(position))
        worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    return worst


def measure(contexts: Sequence[int], threads: int, rounds: int) -> list[Row]:
    """One row per context, all of them timed in turn."""
    inputs = _inputs(POSITION)
    runs, sizes, errors = {}, {}, {}
    for context in contexts:
        model = _model(context)
        sizes[context] = sum(x.numel() * x.element_size() for x in model.attentions.buffers())
        program = lower(copy.deepcopy(model), inputs, tune="off", threads=threads)
        exported = torch.export.export(copy.deepcopy(model), inputs)
        theirs = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        runs[context, "ours"] = native(program.buffer, inputs, threads)
        runs[context, "theirs"] = native(theirs.to_executorch().buffer, inputs, threads)
        errors[context] = _error(program, model)
    names = {f"{context} {whose}": warmed_up(run) for (context, whose), run in runs.items()}
    found = interleave(names, rounds)
    base = found[f"{contexts[0]} ours"]
    return [
        Row(
            context=context,
            threads=threads,
            ours_ms=found[f"{context} ours"].median_ms,
            executorch_ms=found[f"{context} theirs"].median_ms,
            gain=ratio(found[f"{context} theirs"], found[f"{context} ours"]),
            over_base=ratio(found[f"{context} ours"], base),
            spread=found[f"{context} ours"].spread,
            cache_bytes=sizes[context],
            error=errors[context],
        )
        for context in contexts
    ]


HEADER = (
    f"{'context':>7} {'th':>2} {'ms/token':>8} {'ExecuTorch':>10} {'gain':>6} {'/first':>6} "
    f"{'+-':>6} {'caches MB':>9} {'off':>8}"
)


def _line(row: Row) -> str:
    return (
        f"{row.context:>7} {row.threads:>2} {row.ours_ms:>8.2f} {row.executorch_ms:>10.2f} "
        f"{row.gain:>6.2f} {row.over_base:>6.2f} {row.spread:>6.3f} {row.cache_bytes / 1e6:>9.1f} "
        f"{row.error:>8.1e}"
    )


def _missed(rows: Sequence[Row]) -> list[str]:
    missed = [
        f"context {row.context}, {row.threads} threads: off by {row.error:.1e}"
        for row in rows
        if row.error > MOST_ERROR
    ]
    first = {(row.context, row.threads): row for row in rows}
    for row in rows:
        if row.context == LONG and (BASE, row.threads) in first:
            factor = row.ours_ms / first[BASE, row.threads].ours_ms
            if factor > MOST_FOR_LONG:
                missed.append(f"context {LONG}, {row.threads} threads: {factor:.2f} of {BASE}'s")
    return missed


def main() -> int:
    """Print the table."""
    options = parser(__doc__ or "")
    options.add_argument("--contexts", type=int, nargs="+", default=list(CONTEXTS))
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    chosen = options.parse_args()
    if min(chosen.contexts) <= POSITION:
        options.error(f"contexts are to be longer than {POSITION}, where the token stands")
    warnings.filterwarnings("ignore")
    print(HEADER, flush=True)
    rows = []
    for threads in chosen.threads:
        for row in measure(
            sorted(chosen.contexts), threads, QUICK_ROUNDS if chosen.quick else ROUNDS
        ):
            print(_line(row), flush=True)
            rows.append(row)
    return conclude(chosen, {"rows": [asdict(row) for row in rows]}, _missed(rows))


if __name__ == "__main__":
    sys.exit(main())
