"""A Llama of four layers by ours, ExecuTorch's own flow and llama.cpp, in one process.

    python benchmarks/llama.py [SCHEME ...] [--llama-cpp FOLDER] [--threads 1 2] [--quick]
        [--json FILE] [--check]

Random weights of 2048 channels, 16 heads of which 8 have keys and values, 5632 hidden channels, and
8000 words; a context of 512. Programs run in turn: a prompt of 128 tokens into empty caches, and
single tokens from position 64 on.

scheme     ours                       ExecuTorch                llama.cpp
float32    lower_llm                  export_llama, XNNPACK     F32
8da4w      quantize="8da4w"           the same, groups of 32    the faster of Q4_0 and Q4_K
4w         quantize="4w"              (not there)               the faster of Q4_0 and Q4_K
Q4_0       lower_llm of the GGUF file (not there)               the same file
Q4_K       lower_llm of the GGUF file (not there)               the same file
Q4_0 int8  and activations="int8"     (not there)               the same file
Q4_K int8  and activations="int8"     (not there)               the same file

ExecuTorch's program is what `export_llama` makes with key and value caches, its custom operators
for attention and XNNPACK with "extended_ops", and runs in ExecuTorch's own Python module. llama.cpp
(how to build it: benchmarks/llm.py) takes weights as they are and repacked; the faster counts.
OpenMP's threads sleep when they have no work. "of memory" is how much of the bandwidth at which as
many bytes are summed in the same rounds a token gets from its weights (the GGUF file's, or our
file's) without the table of words, of which it reads a row, and from the live part of the caches.
"off" is the largest difference of the scores after the prompt from ExecuTorch's, or where it has
none from llama.cpp's, over the largest score; llama.cpp rounds activations to 8 bits.

--check exits with 1 when ours is slower than either with float32, less than 1.05 times as fast as
ExecuTorch or 1.3 times as fast as llama.cpp with 8da4w, slower than llama.cpp with GGUF's blocks
and int8 activations, which is how llama.cpp computes, or with weights of integers alone for a token
slower than llama.cpp or below 0.8 of the bandwidth. Prompts of float activations, whose products
are exact, are not compared with llama.cpp's, whose are not.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Read when OpenMP is loaded, as with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gguf
import numpy as np
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from torch import nn

from benchmarks.llm import QUICK_ROUNDS, ROUNDS, Speed, import_llama_cpp, speeds
from benchmarks.llm_decoders import OURS, Decoder, ExecuTorch, LlamaCpp, Ours, llama_cpp
from benchmarks.running import conclude, parser
from orchestrator import lower_llm
from orchestrator.llm.lower_llm import Activations

CONTEXT, CHUNK, PROMPT, GROUP = 512, 128, 128, 32
SIZES: dict[str, Any] = {
    "dim": 2048,
    "n_layers": 4,
    "n_heads": 16,
    "n_kv_heads": 8,
    "hidden_dim": 5632,
    "vocab_size": 8000,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
FIRST, TOKENS = 64, 8  # where benchmarks/llm.py times single tokens
THEIRS, LLAMA_CPP = "ExecuTorch", "llama.cpp"
# llama.cpp's numbers for the types that all matrices are to have.
FILE_TYPES = {"F32": 0, "Q4_0": 2, "Q4_K": 14}
LEAST_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Scheme:
    """What is compared; files: llama.cpp's, the first of which is ours too if `ours` is None.

    ours: the recipe for `lower_llm`, "" for none. theirs: export_llama's mode, None if there is no
    program of ExecuTorch. least, least_of_llama_cpp: how many times as fast as they ours has to be.
    activations: as `lower_llm` takes them. reads_weights: weights of integers alone, whose tokens
    are to be as fast as memory is, and whose prompts are not compared with llama.cpp's.
    """

    ours: str | None
    theirs: str | None
    files: tuple[str, ...]
    least: float = 1.0
    least_of_llama_cpp: float = 1.0
    reads_weights: bool = False
    activations: Activations = "float32"


SCHEMES = {
    "float32": Scheme("", "", ("F32",)),
    "8da4w": Scheme("8da4w", "8da4w", ("Q4_0", "Q4_K"), 1.05, 1.3),
    "4w": Scheme("4w", None, ("Q4_0", "Q4_K"), reads_weights=True),
    "Q4_0": Scheme(None, None, ("Q4_0",), reads_weights=True),
    "Q4_K": Scheme(None, None, ("Q4_K",), reads_weights=True),
    "Q4_0 int8": Scheme(None, None, ("Q4_0",), activations="int8"),
    "Q4_K int8": Scheme(None, None, ("Q4_K",), activations="int8"),
}


@dataclass(frozen=True)
class Row:
    """A prompt or single tokens of one scheme; tokens per second, and ours over theirs."""

    scheme: str
    what: str
    threads: int
    ours: float
    executorch: float | None
    llama_cpp: float
    gain: float | None
    gain_over_llama_cpp: float
    spread: float
    of_memory: float | None
    megabytes: float
    error: float


def transformer() -> nn.Module:
    """ExecuTorch's Transformer with random weights."""
    torch.manual_seed(0)
    sizes = ModelArgs(**SIZES, max_seq_len=CONTEXT, max_context_len=CONTEXT)
    model: nn.Module = construct_transformer(sizes).eval()
    return model.requires_grad_(False)


def write_gguf(path: Path, model: nn.Module) -> Path:
    """Write a float32 GGUF file of the weights, whose tokenizer knows no words."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {
        "context_length": CONTEXT,
        "embedding_length": SIZES["dim"],
        "block_count": SIZES["n_layers"],
        "feed_forward_length": SIZES["hidden_dim"],
        "attention.head_count": SIZES["n_heads"],
        "attention.head_count_kv": SIZES["n_kv_heads"],
        "vocab_size": SIZES["vocab_size"],
    }.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", SIZES["norm_eps"])
    writer.add_float32("llama.rope.freq_base", SIZES["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(_words())
    writer.add_token_merges(["! !"])
    writer.add_token_types([gguf.TokenType.NORMAL] * SIZES["vocab_size"])
    writer.add_eos_token_id(SIZES["vocab_size"] - 1)
    for name, value in model.named_parameters():
        writer.add_tensor(_name(name), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _words() -> list[str]:
    """The bytes as byte-level tokenizers write them, one pair, and words that no text has."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    alphabet = [chr(code if code in printable else next(others)) for code in range(256)]
    return [*alphabet, "!!", *(f"<|{index}|>" for index in range(257, SIZES["vocab_size"]))]


def _name(theirs: str) -> str:
    """A tensor's name in a GGUF file."""
    names = {
        "tok_embeddings": "token_embd",
        "norm": "output_norm",
        "attention.wq": "attn_q",
        "attention.wk": "attn_k",
        "attention.wv": "attn_v",
        "attention.wo": "attn_output",
        "attention_norm": "attn_norm",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
    }
    stem = theirs.removesuffix(".weight")
    if not stem.startswith("layers."):
        return f"{names.get(stem, stem)}.weight"
    _, index, part = stem.split(".", 2)
    return f"blk.{index}.{names.get(part, part)}.weight"


def quantized_gguf(path: Path, kind: str) -> Path:
    """Have llama.cpp quantize all matrices of a file to one type of blocks; return the new file.

    Raises:
        RuntimeError: it fails.
    """
    library = llama_cpp()
    options = library.llama_model_quantize_default_params()
    options.ftype = FILE_TYPES[kind]
    options.pure = True
    to = path.with_name(f"{kind}.gguf")
    status = library.llama_model_quantize(os.fsencode(path), os.fsencode(to), options)
    if status != 0:
        raise RuntimeError(f"llama.cpp does not quantize {path} to {kind}: status {status}")
    return to


def executorch_program(folder: Path, model: nn.Module, mode: str) -> Path:
    """Lower by ExecuTorch's own flow for such models; mode: of quantization, "" for none."""
    from executorch.examples.models.llama.export_llama_lib import export_llama
    from executorch.extension.llm.export.config.llm_config import LlmConfig

    checkpoint, sizes = folder / "weights.pth", folder / "sizes.json"
    torch.save(model.state_dict(), checkpoint)
    sizes.write_text(json.dumps(SIZES))
    config = LlmConfig()
    config.base.checkpoint, config.base.params = str(checkpoint), str(sizes)
    config.model.use_kv_cache = config.model.use_sdpa_with_kv_cache = True
    config.export.max_seq_length = config.export.max_context_length = CONTEXT
    config.export.output_dir = str(folder)
    config.export.output_name = str(folder / f"executorch {mode or 'float32'}.pte")
    if mode:
        config.quantization.qmode, config.quantization.group_size = mode, GROUP
    config.backend.xnnpack.enabled = config.backend.xnnpack.extended_ops = True
    path = Path(config.export.output_name)
    export_llama(config)
    return path


class Files:
    """Programs and GGUF files in a folder, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """Write the weights."""
        self._folder = folder
        self.model = transformer()
        self._made = {"F32": write_gguf(folder / "F32.gguf", self.model)}

    def _once(self, name: str, make: Callable[[], Path]) -> Path:
        if name not in self._made:
            start = time.perf_counter()
            self._made[name] = make()
            print(f"{name}: made in {time.perf_counter() - start:.0f} s", flush=True)
        return self._made[name]

    def gguf(self, kind: str) -> Path:
        """A GGUF file whose matrices are of one type."""
        return self._once(kind, lambda: quantized_gguf(self._made["F32"], kind))

    def executorch(self, mode: str) -> Path:
        """ExecuTorch's own program."""
        name = f"ExecuTorch, {mode or 'float32'}"
        return self._once(name, lambda: executorch_program(self._folder, self.model, mode))

    def ours(self, scheme: Scheme) -> Path:
        """Our program."""
        kind = scheme.files[0] if scheme.ours is None else scheme.ours or "float32"
        if scheme.activations == "int8":
            kind += " int8"
        return self._once(f"ours, {kind}", lambda: self._lower(scheme, f"ours {kind}.pte"))

    def _lower(self, scheme: Scheme, name: str) -> Path:
        plain = scheme.ours is not None
        source: Any = self.model if plain else self.gguf(scheme.files[0])
        path = self._folder / name
        lower_llm(
            source,
            tokenizer=self._made["F32"] if plain else None,
            backends=["ggml", "xnnpack"],
            context=CONTEXT,
            chunk=CHUNK,
            quantize=scheme.ours or None,
            activations=scheme.activations,
            tune="off",
        ).save(path)
        return path


def measure(name: str, files: Files, threads: int, rounds: int) -> list[Row]:
    """A row for prompts and one for single tokens."""
    scheme = SCHEMES[name]
    program = files.ours(scheme)
    decoders: dict[str, Decoder] = {OURS: Ours(program, threads)}
    if scheme.theirs is not None:
        decoders[THEIRS] = ExecuTorch(files.executorch(scheme.theirs), threads)
    for kind in scheme.files:
        for how, repacked in {"": False, ", repacked": True}.items():
            decoders[f"{LLAMA_CPP} {kind}{how}"] = LlamaCpp(
                files.gguf(kind), threads, CONTEXT, repacked=repacked
            )
    tokens = np.random.default_rng(0).integers(0, SIZES["vocab_size"], PROMPT).tolist()
    rows = SIZES["n_kv_heads"] * SIZES["dim"] // SIZES["n_heads"] * (FIRST + TOKENS // 2)
    read = _weight_bytes(scheme, files, program) + 2 * 4 * SIZES["n_layers"] * rows
    error = _error(decoders, tokens, THEIRS if scheme.theirs is not None else None)
    found = speeds(decoders, tokens, threads, rounds, read, time.perf_counter_ns)
    return [_row(name, speed, program, error) for speed in found]


def _weight_bytes(scheme: Scheme, files: Files, program: Path) -> int:
    """Of a file without its table of words; our own files have that in float32."""
    if scheme.ours is not None:
        return program.stat().st_size - 4 * SIZES["vocab_size"] * SIZES["dim"]
    path = files.gguf(scheme.files[0])
    tensors = gguf.GGUFReader(path).tensors
    (table,) = (tensor for tensor in tensors if tensor.name == "token_embd.weight")
    return path.stat().st_size - int(table.n_bytes)


def _error(decoders: Mapping[str, Decoder], tokens: Sequence[int], reference: str | None) -> float:
    other = reference or next(each for each in decoders if each != OURS)
    want, got = (np.array(decoders[each](tokens, 0)).ravel() for each in (other, OURS))
    return float(np.abs(got - want).max() / np.abs(want).max())


def _row(name: str, speed: Speed, program: Path, error: float) -> Row:
    times = dict(speed.times_ms)
    ours, theirs = times.pop(OURS), times.pop(THEIRS, None)
    best = min(times.values())
    reads = SCHEMES[name].reads_weights and speed.bound_ms is not None
    return Row(
        scheme=name,
        what=speed.what,
        threads=speed.threads,
        ours=speed.tokens / ours * 1e3,
        executorch=None if theirs is None else speed.tokens / theirs * 1e3,
        llama_cpp=speed.tokens / best * 1e3,
        gain=None if theirs is None else theirs / ours,
        gain_over_llama_cpp=best / ours,
        spread=speed.spread,
        of_memory=speed.bound_ms / ours if reads and speed.bound_ms else None,
        megabytes=program.stat().st_size / 1e6,
        error=error,
    )


HEADER = (
    f"{'scheme':<9} {'what':<6} {'th':>2} {'tokens/s':>9} {'ExecuTorch':>10} {'gain':>5} "
    f"{'llama.cpp':>9} {'gain':>5} {'+-':>5} {'of memory':>9} {'MB':>6} {'off':>8}"
)


def _line(row: Row) -> str:
    executorch = "-" if row.executorch is None else f"{row.executorch:.1f}"
    gain = "-" if row.gain is None else f"{row.gain:.2f}"
    of_memory = "-" if row.of_memory is None else f"{row.of_memory:.2f}"
    return (
        f"{row.scheme:<9} {row.what:<6} {row.threads:>2} {row.ours:>9.1f} {executorch:>10} "
        f"{gain:>5} {row.llama_cpp:>9.1f} {row.gain_over_llama_cpp:>5.2f} {row.spread:>5.2f} "
        f"{of_memory:>9} {row.megabytes:>6.1f} {row.error:>8.1e}"
    )


def _missed(rows: Sequence[Row]) -> list[str]:
    result = []
    for row in rows:
        scheme = SCHEMES[row.scheme]
        where = f"{row.scheme}, {row.what}, {row.threads} threads"
        if row.gain is not None and row.gain < scheme.least:
            result.append(f"{where}: {row.gain:.2f} times ExecuTorch's speed")
        exact = scheme.reads_weights and row.what == "prompt"
        if not exact and row.gain_over_llama_cpp < scheme.least_of_llama_cpp:
            result.append(f"{where}: {row.gain_over_llama_cpp:.2f} times llama.cpp's speed")
        if row.of_memory is not None and row.of_memory < LEAST_OF_MEMORY:
            result.append(f"{where}: {row.of_memory:.2f} of what memory gives")
    return result


def main() -> int:
    """Print the table."""
    options = parser(__doc__ or "")
    options.add_argument("schemes", nargs="*", help=f"of {', '.join(SCHEMES)}; all if left out")
    options.add_argument("--llama-cpp", type=Path, help="the folder that llama_cpp is installed in")
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    chosen = options.parse_args()
    unknown = sorted(set(chosen.schemes) - set(SCHEMES))
    if unknown:
        options.error(f"unknown scheme {unknown[0]!r}; expected {', '.join(SCHEMES)}")
    warnings.filterwarnings("ignore")
    import_llama_cpp(chosen.llama_cpp)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        for name in chosen.schemes or SCHEMES:
            for threads in chosen.threads:
                found = measure(name, files, threads, QUICK_ROUNDS if chosen.quick else ROUNDS)
                if not rows:
                    print(HEADER)
                for row in found:
                    print(_line(row), flush=True)
                rows += found
    return conclude(chosen, {"rows": [asdict(row) for row in rows]}, _missed(rows))


if __name__ == "__main__":
    sys.exit(main())
