"""From a GGUF file to one .pte with the methods `prefill` and `decode`, and text from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export

from orchestrator.backends import Backend, resolve_backends
from orchestrator.frontend.torch_state import ONE_AT_A_TIME
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.expand import expanding
from orchestrator.llm.families import read_decoder
from orchestrator.llm.generate import Generation, generate, in_chunks
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.sampling import Sampling
from orchestrator.llm.tokenizer import Message, Tokenizer
from orchestrator.lowering import lower
from orchestrator.native import NativeProgram
from orchestrator.options import DEFAULT_BACKENDS, OptionError, Tune, TuneEvent
from orchestrator.program import LoweredProgram

CONTEXT = 2048
"""Tokens that the caches hold, unless asked for otherwise or the model is made for fewer."""
CHUNK = 128
"""The most tokens of a prompt that are run at once, unless asked for otherwise."""


@dataclass(frozen=True)
class LanguageModel:
    """A lowered decoder with its tokenizer.

    program: has the methods `prefill` and `decode`, which share their caches. Each takes tokens,
    int64 [1, n], and their positions, int64 [n], and returns the scores of the next token, float32
    [1, vocabulary]; n is 2 to `chunk` for the one, 1 for the other.
    context: tokens that the caches hold. threads: to run on; None for all there are.
    """

    program: LoweredProgram
    tokenizer: Tokenizer
    context: int
    chunk: int
    threads: int | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .pte; see `LoweredProgram.save`."""
        self.program.save(path)

    def generate(
        self,
        prompt: str | Sequence[Message],
        max_new_tokens: int = 256,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        stream: Callable[[str], None] | None = None,
    ) -> Generation:
        """Continue a text, or answer a conversation.

        prompt: text, which is continued as it is; or messages, which the model's chat template
            makes a prompt of: [{"role": "user", "content": "Who are you?"}].
        max_new_tokens: the most to generate; at the end of the context it ends in any case.
        temperature, top_p, seed: see `Sampling`.
        stop: texts that end the answer, and are no part of it.
        stream: called with each piece of text as it comes.

        Raises:
            OptionError: values out of range, or a prompt that the context does not hold.
            ModelError: messages that the model has no template for, or that it refuses.
        """
        sampling = Sampling(temperature, top_p, seed)
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt)
        else:
            # The template writes the token that begins a text itself.
            tokens = self.tokenizer.encode(self.tokenizer.chat(prompt), begin=False)
        return generate(
            in_chunks(self._method("prefill"), self._method("decode"), self.chunk),
            self.tokenizer,
            tokens,
            context=self.context,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            stream=stream,
        )

    def _method(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        def run(tokens: Tensor, positions: Tensor) -> Tensor:
            (scores,) = self._native.run(name, [tokens, positions])
            assert isinstance(scores, Tensor)
            return scores

        return run

    @cached_property
    def _native(self) -> NativeProgram:
        return NativeProgram.mapped(
            self.program.buffer,
            num_threads=self.threads or 0,
            backend_options=self.program.load_options,
        )


def lower_llm(
    source: str | os.PathLike[str],
    *,
    backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
    context: int | None = None,
    chunk: int | None = None,
    tune: Tune = "cached",
    threads: int | None = None,
    progress: Callable[[TuneEvent], None] | None = None,
) -> LanguageModel:
    """Lower the decoder of a GGUF file for several backends.

    source: the file; see docs/llm.md for the architectures and types of weights.
    backends, tune, threads: as for `lower`.
    context: tokens that the caches hold, 2048 if left out, or as many as the model is made for.
    chunk: the most tokens of a prompt that are run at once, 128 if left out, or the context where
        that is less.
    progress: called at each stage, and while measuring.

    Raises:
        ModelError: the file cannot be read, or has an architecture, tensor or type that is not
            known here.
        OptionError: values out of range.
        ImportError: a package of the extra `llm` is not installed.
        Others: as `lower`.
    """
    stages = _Stages(progress)
    stages.next("reading the file")
    file = GgufFile(source)
    tokenizer = Tokenizer(file)
    resolved = resolve_backends(backends)
    integers = any(backend.takes_grouped_integers for backend in resolved)
    decoder = read_decoder(file, context, most=CONTEXT, read=None if integers else expanding(file))
    chunk = min(CHUNK, decoder.context) if chunk is None else chunk
    if not 2 <= chunk <= decoder.context:
        raise OptionError(f"chunk is {chunk}; expected 2 to the context, {decoder.context}")
    stages.next("exporting")
    methods = exported(decoder, chunk)
    stages.next("lowering")
    program = lower(
        methods,
        backends=resolved,
        tune=tune,
        threads=threads,
        progress=progress,
        constant_methods=_metadata(decoder, tokenizer, chunk),
    )
    stages.next("done")
    return LanguageModel(program, tokenizer, decoder.context, chunk, threads)


def exported(decoder: Decoder, chunk: int) -> dict[str, ExportedProgram]:
    """Return the methods of a decoder: `prefill` of 2 to `chunk` tokens, and `decode` of one."""
    count = Dim("count", min=2, max=chunk) if chunk > 2 else None
    sizes = {"tokens": {1: count}, "positions": {0: count}}
    example = min(chunk, 8)
    with ONE_AT_A_TIME, torch.no_grad():
        return {
            "prefill": export(decoder, _inputs(example), dynamic_shapes=sizes),
            "decode": export(decoder, _inputs(1)),
        }


def _inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, count, dtype=torch.int64), torch.arange(count)


def _metadata(decoder: Decoder, tokenizer: Tokenizer, chunk: int) -> dict[str, Any]:
    """Return what ExecuTorch's runners ask a program for."""
    begin = {} if tokenizer.begin is None else {"get_bos_id": tokenizer.begin}
    return {
        **begin,
        "get_eos_ids": list(tokenizer.ends),
        "get_max_context_len": decoder.context,
        "get_max_seq_len": chunk,
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
