"""A language model against llama.cpp, both from the same GGUF file.

    python benchmarks/llm.py [--program FILE.pte] [--llama-cpp FOLDER] [--threads 1 2] [--quick]
        [--processor-time] [--json FILE] [--check]

SmolLM2-135M-Instruct (Q4_1, its table of words Q8_0) is lowered for ggml and XNNPACK, or was
lowered before (--program). llama.cpp is what the package llama-cpp-python builds of it:

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --target FOLDER llama-cpp-python

It is loaded with weights that it repacks ("extra buffers") and without, with the context that ours
has; "gain" is over the faster of the two. All are called from Python, in turn, in one process: a
prompt of 128 tokens into empty caches, and single tokens from position 64 on. A decoder whose
process a prompt ends by a signal, which is tried first, is named, and timed for single tokens only.
OpenMP's threads, which llama.cpp computes with, sleep when they have no work (OMP_WAIT_POLICY is
"passive" if it is not set): else they would take the processors from what runs next.

"bound" is what a token would take if the file and the live part of the caches were only read, at
the bandwidth (GB/s) at which as many bytes are summed in the same rounds. Loading and memory are
measured in processes of their own: the time until both methods can run (llama.cpp's has its
vocabulary in it, that of ours is in "+tokenizer"), and what is private of the memory beyond what it
was before, once a prompt and a token have run.

On a machine that others keep busy, --processor-time compares what the processors computed, which is
steadier; with several threads, what they spend on waiting awake is in it.

Greedy tokens of three prompts are compared until they first differ; there, the line says how far
the two tokens' scores are apart. llama.cpp rounds activations to 8 bits where weights are
quantized, so that tokens may differ where two are close.

--check exits with 1 when ours runs prompts or tokens slower than llama.cpp, its file is larger than
1.05 times the GGUF file, or it takes more than 100 ms to load or more than 1.2 times llama.cpp's
private memory.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

# Read when OpenMP is loaded, as with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.deciding import ratio_spread
from benchmarks.interleave import Timing, interleave, ratio
from benchmarks.llm_decoders import (
    OURS,
    PLAIN,
    REPACKED,
    Decoder,
    common,
    greedy,
    lead,
    llama_cpp,
    load,
    one_by_one,
)
from benchmarks.running import Timed, conclude, parser, timed, warmed_up
from examples.llm import smollm2
from orchestrator import LanguageModel, lower_llm
from orchestrator.llm.families import read_config
from orchestrator.llm.gguf_file import GgufFile

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, CHUNK = 512, 128
PROMPT = 128
FIRST, TOKENS = 64, 8  # where single tokens are timed, and how many in a row
ROUNDS, QUICK_ROUNDS = 40, 10
LOADS, QUICK_LOADS = 5, 3
GREEDY = 64
TEXTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
)
READING = "reading"
Clock: TypeAlias = "Callable[[], int]"
LEAST_GAIN = 1.0
MOST_OF_FILE = 1.05
MOST_LOAD_MS = 100.0
MOST_OF_PRIVATE = 1.2

_CHILD = """
import json, sys, time
import numpy as np
whose, path, context, folder, tokens, alone = json.loads(sys.argv[1])
if folder:
    sys.path.append(folder)
from benchmarks.llm_decoders import OURS, llama_cpp, load, one_by_one, private_bytes

if whose != OURS:
    llama_cpp()
before = private_bytes()
start = time.perf_counter_ns()
decode = load(whose, path, 1, context)
loaded = time.perf_counter_ns()
(one_by_one(decode) if alone else decode)(tokens, 0)
decode(tokens[:1], len(tokens))
print(json.dumps([(loaded - start) / 1e6, private_bytes() - before]))
"""


@dataclass(frozen=True)
class Speed:
    """Times in ms of a prompt or of one token.

    gain: the faster of llama.cpp's times over ours, the median over the rounds. spread: half the
    interquartile range of that. bound_ms, bandwidth_gb_s: reading what a token needs; None for a
    prompt, which needs it once for many.
    """

    what: str
    tokens: int
    threads: int
    times_ms: Mapping[str, float]
    gain: float
    spread: float
    bound_ms: float | None = None
    bandwidth_gb_s: float | None = None


@dataclass(frozen=True)
class Footprint:
    """What a decoder takes: to load, of private memory, and as a file."""

    whose: str
    load_ms: float
    private_bytes: float
    file_bytes: int


@dataclass(frozen=True)
class Agreement:
    """Greedy tokens after a text.

    alike: how many of `of` are the same until the first that differs. ours, theirs: by how much
    each prefers its own token there; None if all are alike.
    """

    text: str
    alike: int
    of: int
    ours: float | None = None
    theirs: float | None = None


def agreement(text: str, prompt: Sequence[int], ours: Decoder, theirs: Decoder) -> Agreement:
    """Compares the greedy tokens after a prompt."""
    found, expected = (greedy(each, prompt, GREEDY) for each in (ours, theirs))
    alike = common(found, expected)
    if alike == GREEDY:
        return Agreement(text, alike, GREEDY)
    before = [*prompt, *found[:alike]]
    one, other = found[alike], expected[alike]
    leads = lead(ours, before, one, other), lead(theirs, before, other, one)
    return Agreement(text, alike, GREEDY, *leads)


def _single_tokens(decode: Decoder, tokens: Sequence[int], clock: Clock) -> Timed:
    """Times the mean of `TOKENS` tokens from `FIRST` on, one after another."""

    def run() -> None:
        for position in range(FIRST, FIRST + TOKENS):
            decode(tokens[position : position + 1], position)

    once = timed(run, clock)
    return lambda: once() / TOKENS


def _reading(count: int, threads: int, clock: Clock) -> Timed:
    """Times reading as many bytes, by having torch sum them."""
    values = torch.ones(count // 4)
    once = timed(values.sum, clock)

    def run() -> float:
        torch.set_num_threads(threads)
        return once()

    return run


def speeds(
    decoders: Mapping[str, Decoder],
    tokens: Sequence[int],
    threads: int,
    rounds: int,
    read: int,
    clock: Clock,
    alone: Collection[str] = (),
) -> list[Speed]:
    """Times a prompt and single tokens.

    read: the bytes that a token needs. alone: the decoders that cannot run a prompt at once.
    """

    def measured(runs: Mapping[str, Timed]) -> dict[str, Timing]:
        return interleave({name: warmed_up(run) for name, run in runs.items()}, rounds)

    for decode in decoders.values():
        decode(tokens, 0)  # fills the caches
    prompts = measured(
        {
            name: timed(partial(each, tokens, 0), clock)
            for name, each in decoders.items()
            if name not in alone
        }
    )
    single = {name: _single_tokens(each, tokens, clock) for name, each in decoders.items()}
    singles = measured({**single, READING: _reading(read, threads, clock)})
    bound = singles.pop(READING).median_ms
    return [
        speed("prompt", len(tokens), threads, prompts),
        speed("token", 1, threads, singles, bound, read / bound / 1e6),
    ]


def speed(
    what: str,
    tokens: int,
    threads: int,
    found: Mapping[str, Timing],
    bound_ms: float | None = None,
    bandwidth_gb_s: float | None = None,
) -> Speed:
    """Compares ours with the faster of the others."""
    theirs = [timing for name, timing in found.items() if name != OURS]
    best = min(theirs, key=lambda each: each.median_ms)
    return Speed(
        what=what,
        tokens=tokens,
        threads=threads,
        times_ms={name: timing.median_ms for name, timing in found.items()},
        gain=ratio(best, found[OURS]),
        spread=ratio_spread(best, found[OURS]),
        bound_ms=bound_ms,
        bandwidth_gb_s=bandwidth_gb_s,
    )


@dataclass(frozen=True)
class Children:
    """Processes that load a decoder with one thread, and run a prompt and a token.

    files: by decoder. folder: where llama_cpp is, if not among the installed packages.
    """

    files: Mapping[str, Path]
    folder: Path | None
    tokens: Sequence[int]
    context: int

    def run(self, whose: str, *, alone: bool) -> subprocess.CompletedProcess[str]:
        """Prints ms to load and private bytes; `alone` runs the prompt token by token."""
        folder = str(self.folder.resolve()) if self.folder else ""
        path, tokens = str(self.files[whose]), list(self.tokens)
        given = json.dumps([whose, path, self.context, folder, tokens, alone])
        command = [sys.executable, "-c", _CHILD, given]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    def that_die(self) -> set[str]:
        """The decoders whose process a prompt ends by a signal, as AMX may; says so."""
        found = set()
        for whose in self.files:
            status = self.run(whose, alone=False).returncode
            if status < 0:
                name = signal.Signals(-status).name
                print(f"{whose}: {name} at a prompt; tokens are run one by one there")
                found.add(whose)
        return found


def footprints(children: Children, alone: Collection[str], times: int) -> list[Footprint]:
    """Loads each file in new processes, in turn; medians.

    Raises:
        RuntimeError: one fails.
    """
    found: dict[str, list[tuple[float, int]]] = {whose: [] for whose in children.files}
    for _ in range(times):
        for whose, path in children.files.items():
            result = children.run(whose, alone=whose in alone)
            if result.returncode != 0:
                raise RuntimeError(f"loading {path} as {whose} failed:\n{result.stderr}")
            found[whose].append(json.loads(result.stdout))
    return [
        Footprint(
            whose,
            statistics.median(load_ms for load_ms, _ in found[whose]),
            statistics.median(private for _, private in found[whose]),
            path.stat().st_size,
        )
        for whose, path in children.files.items()
    ]


def missed(speeds: Sequence[Speed], footprints: Sequence[Footprint]) -> list[str]:
    """The targets that are missed, in words; one footprint is ours, one or more llama.cpp's."""
    result = [
        f"{row.what}, {row.threads} threads: {row.gain:.2f} +- {row.spread:.2f} times llama.cpp's "
        f"speed; expected {LEAST_GAIN} or more"
        for row in speeds
        if row.gain < LEAST_GAIN
    ]
    (ours,) = (row for row in footprints if row.whose == OURS)
    theirs = [row for row in footprints if row.whose != OURS]
    file = ours.file_bytes / theirs[0].file_bytes
    if file > MOST_OF_FILE:
        result.append(f"the file: {file:.3f} times the GGUF file; expected {MOST_OF_FILE} or less")
    if ours.load_ms > MOST_LOAD_MS:
        result.append(f"loading: {ours.load_ms:.0f} ms; expected {MOST_LOAD_MS:.0f} or less")
    private = ours.private_bytes / min(row.private_bytes for row in theirs)
    if private > MOST_OF_PRIVATE:
        result.append(
            f"private memory: {private:.2f} times llama.cpp's; expected {MOST_OF_PRIVATE} or less"
        )
    return result


def import_llama_cpp(folder: Path | None) -> None:
    """Raises SystemExit if it is not there, with how to get it."""
    if folder is not None:
        sys.path.append(str(folder.resolve()))
    try:
        llama_cpp()
    except (ImportError, OSError) as error:  # OSError: the library is missing or does not load
        target = folder or "FOLDER"
        raise SystemExit(
            f"error: llama.cpp cannot be imported: {error}. Build it by\n"
            f"    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --target {target} llama-cpp-python\n"
            f"and pass --llama-cpp {target}"
        ) from error


def _lowered(file: Path, folder: str) -> Path:
    path = Path(folder) / f"{file.stem}.pte"
    print(f"lowering {file.name}, which takes some minutes; --program takes a file", flush=True)
    backends = ["ggml", "xnnpack"]
    lower_llm(file, backends=backends, context=CONTEXT, chunk=CHUNK, tune="off").save(path)
    return path


def _show_speed(row: Speed) -> None:
    columns = "".join(
        f"{row.tokens / row.times_ms[name] * 1e3:>10.1f}" if name in row.times_ms else f"{'-':>10}"
        for name in (OURS, PLAIN, REPACKED)
    )
    bound = "" if row.bound_ms is None else f"{row.bound_ms:>8.2f}{row.bandwidth_gb_s:>7.1f}"
    print(
        f"{row.what:<7}{row.threads:>3}{columns}{row.gain:>7.2f}{row.spread:>7.2f}"
        f"{row.times_ms[OURS]:>9.2f}{bound}",
        flush=True,
    )


def _show_footprint(row: Footprint, tokenizer_ms: float) -> None:
    tokenizer = f"{tokenizer_ms:>12.1f}" if row.whose == OURS else ""
    print(
        f"{row.whose:<20}{row.file_bytes / 1e6:>9.2f}{row.private_bytes / 1e6:>12.1f}"
        f"{row.load_ms:>9.1f}{tokenizer}"
    )


def _show_agreement(row: Agreement, name: str) -> None:
    rest = ""
    if row.ours is not None and row.theirs is not None:
        rest = (
            f"; at the next, ours prefers its token by {row.ours:.3f}, llama.cpp its own by "
            f"{row.theirs:.3f}"
        )
    print(f"{row.text!r}, {name}: {row.alike} of {row.of} tokens alike{rest}")


def run(chosen: Any, pte: Path) -> int:
    """Measures and prints all."""
    gguf = chosen.file
    clock = time.process_time_ns if chosen.processor_time else time.perf_counter_ns
    start = timed(partial(LanguageModel.load, pte, threads=1))
    tokenizer_ms = min(start() for _ in range(3))
    model = LanguageModel.load(pte, threads=1)
    tokens = (model.tokenizer.encode(" ".join(TEXTS) * PROMPT))[:PROMPT]
    config = read_config(GgufFile(gguf), model.context)
    live = 2 * config.depth * config.groups * config.width * 4 * (FIRST + TOKENS // 2)
    read = pte.stat().st_size + live
    files = {OURS: pte, PLAIN: gguf, REPACKED: gguf}
    children = Children(files, chosen.llama_cpp, tokens, model.context)
    alone = children.that_die()
    print(
        f"{'':<7}{'th':>3}{'tokens/s':>10}{'llama.cpp':>10}{'repacked':>10}{'gain':>7}{'+-':>7}"
        f"{'ms':>9}{'bound':>8}{'GB/s':>7}"
    )
    rows: list[Speed] = []
    agreements: dict[str, list[Agreement]] = {}
    for threads in chosen.threads:
        decoders = {name: load(name, path, threads, model.context) for name, path in files.items()}
        decoders |= {name: one_by_one(decoders[name]) for name in alone}
        rounds = QUICK_ROUNDS if chosen.quick else ROUNDS
        for row in speeds(decoders, tokens, threads, rounds, read, clock, alone):
            rows.append(row)
            _show_speed(row)
        if not agreements:
            agreements = {
                name: [
                    agreement(text, model.tokenizer.encode(text), decoders[OURS], decoders[name])
                    for text in TEXTS
                ]
                for name in (PLAIN, REPACKED)
            }
    print(f"\n{'':<20}{'file MB':>9}{'private MB':>12}{'load ms':>9}{'+tokenizer':>12}")
    loads = QUICK_LOADS if chosen.quick else LOADS
    found = footprints(children, alone, loads)
    for footprint in found:
        _show_footprint(footprint, tokenizer_ms)
    print()
    for name, each in agreements.items():
        for compared in each:
            _show_agreement(compared, name)
    results = {
        "speeds": [asdict(row) for row in rows],
        "footprints": [asdict(row) for row in found],
        "load_with_tokenizer_ms": tokenizer_ms,
        "agreements": {name: [asdict(row) for row in each] for name, each in agreements.items()},
    }
    return conclude(chosen, results, missed(rows, found))


def main() -> int:
    """Lowers if need be, and prints the tables."""
    options = parser(__doc__ or "")
    options.add_argument("--file", type=Path, help="a GGUF file (default: SmolLM2's)")
    options.add_argument("--program", type=Path, help="a .pte that was made of it before")
    options.add_argument("--llama-cpp", type=Path, help="the folder that llama_cpp is installed in")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--processor-time", action="store_true", help="not the time that passed")
    chosen = options.parse_args()
    warnings.filterwarnings("ignore")
    import_llama_cpp(chosen.llama_cpp)
    chosen.file = chosen.file or smollm2()
    with tempfile.TemporaryDirectory() as folder:
        return run(chosen, chosen.program or _lowered(chosen.file, folder))


if __name__ == "__main__":
    sys.exit(main())
