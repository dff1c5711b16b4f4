"""From a GGUF file, a Hugging Face folder or a transformer to one .pte that generates text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from orchestrator.backends import Backend, resolve_backends
from orchestrator.frontend.errors import ModelError
from orchestrator.frontend.quantize import Recipe
from orchestrator.frontend.torch_state import ONE_AT_A_TIME
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.expand import expanding
from orchestrator.llm.families import read_decoder
from orchestrator.llm.model import ONE, TWO, LanguageModel
from orchestrator.llm.open_source import open_source, open_tokenizer
from orchestrator.llm.quantize import check_recipe, quantize_matrices, round_activations
from orchestrator.llm.source import Source
from orchestrator.llm.stored_tokenizer import KEY, pack_tokenizer
from orchestrator.llm.tokenizer import Tokenizer
from orchestrator.lowering import lower_programs
from orchestrator.options import DEFAULT_BACKENDS, OptionError, PlanOptions, Tune, TuneEvent

Methods = Literal["prefill+decode", "forward"]
Activations = Literal["float32", "int8"]
CONTEXT = 2048
"""Tokens that the caches hold, unless asked for otherwise or the model is made for fewer."""
CHUNK = 128
"""The most tokens of a prompt that are run at once, unless asked for otherwise."""
_PLANNED = {"prefill": 128, "forward": 8}
"""Tokens that a method of several is planned for, where it takes as many."""


def lower_llm(
    source: str | os.PathLike[str] | nn.Module,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
    context: int | None = None,
    chunk: int | None = None,
    methods: Methods = "prefill+decode",
    quantize: Recipe | None = None,
    activations: Activations = "float32",
    share_weights: bool = True,
    tune: Tune = "cached",
    threads: int | None = None,
    progress: Callable[[TuneEvent], None] | None = None,
) -> LanguageModel:
    """Lower the decoder of a GGUF file or a Hugging Face folder for several backends.

    source: the file or folder; see docs/llm.md for the architectures and types of weights. Or a
        Transformer of executorch.examples.models.llama, as `construct_transformer` makes it.
    tokenizer: a GGUF file or a Hugging Face folder to take the tokenizer and the chat template
        from; a Transformer has none of its own.
    backends, tune, threads: as for `lower`.
    context: tokens that the caches hold, 2048 if left out, or as many as the model is made for.
    chunk: the most tokens of a prompt that are run at once, 128 if left out, or the context where
        that is less.
    methods: "prefill+decode" for one of several tokens and one of a single token, each planned for
        these, which share weights and caches; "forward" for one of 1 to `chunk` tokens, as
        ExecuTorch's TextLLMRunner runs it.
    quantize: what torchao makes of the matrices of floats that the decoder multiplies by: "8da4w",
        "8da8w", "4w" or "8w", see `orchestrator.frontend.quantize.Recipe`. The table of words
        stays; a head that is tied to it becomes a matrix of its own.
    activations: "int8" has what matrices of integers, as GGUF files have them, multiply become
        integers too, row by row in every run, as llama.cpp does it block by block: prompts take
        less time, and scores are off by what that rounds. It is for ggml's delegate.
    share_weights: whether both methods have a weight in one delegate, that of "decode", so that the
        file and the memory have it once; else each method goes where it is fastest.
    progress: called at each stage, and while measuring.

    Raises:
        ModelError: a file cannot be read, or has an architecture, tensor, type or key that is not
            known here.
        OptionError: values out of range.
        ImportError: a package of the extra `llm` is not installed.
        Others: as `lower`.
    """
    if methods not in get_args(Methods):
        raise OptionError(
            f"methods is {methods!r}; expected {' or '.join(map(repr, get_args(Methods)))}"
        )
    if quantize is not None:
        check_recipe(quantize)
    if activations not in get_args(Activations):
        raise OptionError(
            f"activations is {activations!r}; expected "
            f"{' or '.join(map(repr, get_args(Activations)))}"
        )
    stages = _Stages(progress)
    stages.next("reading the file")
    file = open_source(source)
    words = _tokenizer(file, tokenizer)
    options = PlanOptions(tune=tune, threads=threads, progress=progress)
    resolved = resolve_backends(backends, options)
    integers = any(backend.takes_grouped_integers for backend in resolved)
    decoder = read_decoder(file, context, most=CONTEXT, read=None if integers else expanding(file))
    chunk = min(CHUNK, decoder.context) if chunk is None else chunk
    if not 2 <= chunk <= decoder.context:
        raise OptionError(f"chunk is {chunk}; expected 2 to the context, {decoder.context}")
    notes = []
    if activations == "int8":
        notes.append(round_activations(decoder, file.name))
    if quantize is not None:
        notes.append(quantize_matrices(decoder, quantize, file.name))
    stages.next("exporting")
    # "decode", where most of the time goes, is planned first: it says who holds the weights.
    programs = dict(reversed(exported(decoder, chunk, methods).items()))
    stages.next("lowering")
    program = lower_programs(
        programs,
        resolved,
        options,
        constant_methods=_metadata(decoder, words, chunk, methods),
        named_data={KEY: pack_tokenizer(words)},
        share_weights=share_weights,
        notes=notes,
    )
    stages.next("done")
    return LanguageModel(program, words, decoder.context, chunk, threads)


def _tokenizer(file: Source, other: str | os.PathLike[str] | None) -> Tokenizer:
    if other is None and not file.has_tokenizer:
        raise ModelError(
            f"{file.name} has no tokenizer; name a GGUF file or a Hugging Face folder with one: "
            "lower_llm(model, tokenizer=...)"
        )
    found = Tokenizer(file) if other is None else open_tokenizer(other)
    if found.size != file.vocabulary:
        raise ModelError(
            f"{file.name} scores {file.vocabulary} tokens, and the tokenizer of "
            f"{file.name if other is None else other} has {found.size}"
        )
    return found


def exported(
    decoder: nn.Module, chunk: int, methods: Methods = "prefill+decode"
) -> dict[str, ExportedProgram]:
    """Return the methods of a decoder by name, as `lower_llm` describes them.

    decoder: takes tokens and positions, as `Decoder` does.
    """
    several = ONE[0] if methods == "forward" else TWO[0]
    least = 1 if methods == "forward" else 2
    count = Dim("count", min=least, max=chunk) if chunk > least else None
    sizes = {"tokens": {1: count}, "positions": {0: count}}
    tokens = min(chunk, _PLANNED[several])
    with ONE_AT_A_TIME, torch.no_grad():
        made = {several: export(decoder, _inputs(tokens), dynamic_shapes=sizes)}
        if methods != "forward":
            made[TWO[1]] = export(decoder, _inputs(1))
        return made


def _inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, count, dtype=torch.int64), torch.arange(count)


def _metadata(
    decoder: Decoder, tokenizer: Tokenizer, chunk: int, methods: Methods
) -> dict[str, Any]:
    """Return what ExecuTorch's runners ask a program for.

    Of two methods they would each keep caches of its own, and go on from a prompt that `decode` has
    not seen. They refuse programs without `get_max_seq_len`.
    """
    begin = {} if tokenizer.begin is None else {"get_bos_id": tokenizer.begin}
    # Prompts come in parts of up to `get_max_seq_len` tokens, not token by token.
    single = {"get_max_seq_len": chunk, "enable_dynamic_shape": True}
    return {
        **begin,
        **(single if methods == "forward" else {}),
        "get_eos_ids": list(tokenizer.ends),
        "get_max_context_len": decoder.context,
        "get_vocab_size": tokenizer.size,
        "use_kv_cache": True,
    }


class _Stages:
    """Tells how far lowering is."""

    _COUNT = 3

    def __init__(self, progress: Callable[[TuneEvent], None] | None) -> None:
        self._progress = progress
        self._done = -1

    def next(self, stage: str) -> None:
        """Start a stage."""
        self._done += 1
        if self._progress is not None:
            self._progress(TuneEvent(stage, self._done, self._COUNT))
