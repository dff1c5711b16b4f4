"""Models of half types: this project's default plan beside the float32 model and eager PyTorch.

    python benchmarks/half.py [MODEL ...] [--dtype bfloat16] [--threads 1 2] [--quick] [--check]

A model and its float32 self run in turn in one process with eager PyTorch of the half type. "off"
is how far results are from the float32 weights' exact ones (float64), over the output's largest
value: ours, and eager's.

--check exits with 1 when a program is more than 1.1 times as slow as the float32 one, slower than
eager, further from exact than 1.5 times what eager is, or more than 0.6 times as large as the
float32 one.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.interleave import interleave, ratio
from benchmarks.running import conclude, native, parser, timed, warmed_up
from examples.models import MODELS
from orchestrator import lower

DEFAULT_MODELS = ("mobilenet_v2", "vit_tiny", "bert_mini", "llama_4_layers")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_TIME = 1.1
MOST_BYTES = 0.6
MOST_ERROR = 1.5


@dataclass(frozen=True)
class Row:
    """One model: times in ms, errors over the output's largest value, sizes in bytes."""

    model: str
    dtype: str
    threads: int
    calls: int
    half_ms: float
    float_ms: float
    eager_ms: float
    to_float: float
    eager_to_half: float
    spread: float
    error: float
    eager_error: float
    half_bytes: int
    float_bytes: int


def _cast(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def measure(name: str, dtype_name: str, threads: int, rounds: int) -> Row:
    """Times a model's programs next to each other."""
    dtype = DTYPES[dtype_name]
    torch.manual_seed(0)
    inputs = MODELS[name].inputs(1, 0)
    model = MODELS[name].build().eval()
    float_program = lower(model, inputs, tune="off", threads=threads)
    half = MODELS[name].build().eval()
    half.load_state_dict(model.state_dict())
    half = half.to(dtype)
    given = _cast(inputs, dtype)
    half_program = lower(half, given, tune="off", threads=threads)
    torch.set_num_threads(threads)
    runs = {
        "half": native(half_program.buffer, tree_leaves(given), threads),
        "float": native(float_program.buffer, tree_leaves(inputs), threads),
        "eager": timed(lambda: half(*given)),
    }
    with torch.no_grad():
        found = interleave({name: warmed_up(run) for name, run in runs.items()}, rounds)
        got = tree_leaves(half_program(*given))[0]
        eager = tree_leaves(half(*given))[0]
        exact = tree_leaves(model.double()(*_cast(inputs, torch.float64)))[0]
    scale = exact.abs().max()
    return Row(
        model=name,
        dtype=dtype_name,
        threads=threads,
        calls=len(half_program.plan["forward"].partitions),
        half_ms=found["half"].median_ms,
        float_ms=found["float"].median_ms,
        eager_ms=found["eager"].median_ms,
        to_float=ratio(found["half"], found["float"]),
        eager_to_half=ratio(found["eager"], found["half"]),
        spread=found["half"].spread,
        error=float((got - exact).abs().max() / scale),
        eager_error=float((eager - exact).abs().max() / scale),
        half_bytes=len(half_program.buffer),
        float_bytes=len(float_program.buffer),
    )


HEADER = (
    f"{'model':<18} {'dtype':<9} {'th':>2} {'calls':>5} {'ms':>8} {'float32':>8} {'eager':>8} "
    f"{'/float32':>8} {'eager/':>7} {'+-':>6} {'off':>8} {'eager':>8} {'MB':>6} {'float32':>7}"
)


def show(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.model:<18} {row.dtype:<9} {row.threads:>2} {row.calls:>5} {row.half_ms:>8.2f} "
        f"{row.float_ms:>8.2f} {row.eager_ms:>8.2f} {row.to_float:>8.3f} "
        f"{row.eager_to_half:>7.2f} {row.spread:>6.3f} {row.error:>8.1e} {row.eager_error:>8.1e} "
        f"{row.half_bytes / 1e6:>6.2f} {row.float_bytes / 1e6:>7.2f}"
    )


def missed_by(row: Row) -> list[str]:
    """Which targets a row misses."""
    where = f"{row.model}, {row.dtype}, {row.threads} threads"
    missed = []
    if row.to_float > MOST_TIME:
        missed.append(f"{where}: {row.to_float:.3f} times the float32 program's time")
    if row.eager_to_half < 1:
        missed.append(f"{where}: eager takes {row.eager_to_half:.2f} times as long")
    if row.error > MOST_ERROR * row.eager_error:
        missed.append(f"{where}: off by {row.error:.1e}, eager by {row.eager_error:.1e}")
    if row.half_bytes > MOST_BYTES * row.float_bytes:
        missed.append(f"{where}: {row.half_bytes / row.float_bytes:.2f} times the float32 file")
    return missed


def main() -> int:
    """Print the table."""
    options = parser(__doc__ or "")
    options.add_argument("models", nargs="*", default=DEFAULT_MODELS, help="of examples/models")
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    options.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bfloat16"])
    chosen = options.parse_args()
    warnings.filterwarnings("ignore")
    print(HEADER, flush=True)
    rows: list[Row] = []
    for name in chosen.models:
        for dtype in chosen.dtype:
            for threads in chosen.threads:
                rows.append(measure(name, dtype, threads, 30 if chosen.quick else 150))
                print(show(rows[-1]), flush=True)
    missed = [line for row in rows for line in missed_by(row)]
    return conclude(chosen, {"rows": [asdict(row) for row in rows]}, missed)


if __name__ == "__main__":
    sys.exit(main())
