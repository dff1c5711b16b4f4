"""A lowered decoder with its tokenizer: text from it, to a file and back."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.generate import Generation
from orchestrator.llm.open_source import open_tokenizer
from orchestrator.llm.session import Session
from orchestrator.llm.stored_tokenizer import read_tokenizer
from orchestrator.llm.tokenizer import Message, Tokenizer
from orchestrator.native import NativeProgram, TensorInfo
from orchestrator.program import LoweredProgram, SavedProgram

TWO, ONE = ("prefill", "decode"), ("forward",)
"""The methods of a decoder: for several tokens and for one, or a single one for both."""


@dataclass(frozen=True)
class LanguageModel:
    """A lowered decoder with its tokenizer.

    program: has the methods `prefill` and `decode`, which share their caches, or `forward`. Each
    takes tokens, int64 [1, n], and their positions, int64 [n], and returns the scores of the next
    token, float32 [1, vocabulary]; n is 2 to `chunk` for `prefill`, 1 for `decode`, 1 to `chunk`
    for `forward`.
    context: tokens that the caches hold. threads: to run on; None for all there are.
    """

    program: LoweredProgram | SavedProgram
    tokenizer: Tokenizer
    context: int
    chunk: int
    threads: int | None = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        tokenizer: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> LanguageModel:
        """Load what `save` wrote; the file is mapped, and must not change meanwhile.

        tokenizer: a GGUF file or a Hugging Face folder to take the tokenizer and the chat template
            from, in place of those in the file.
        threads: to run on; None for all there are.

        Raises:
            ModelError: the program has no methods that generate, or none that fit its tokenizer; or
                there is no tokenizer in it, or a damaged one.
            PteError: not an ExecuTorch program, or a damaged one.
            ExecuTorchError: the program cannot be loaded here.
            ImportError: a package of the extra `llm` is not installed.
            OSError: the file cannot be read.
        """
        path = Path(path)
        found = read_tokenizer(path) if tokenizer is None else open_tokenizer(tokenizer)
        program = SavedProgram(path)
        native = NativeProgram(path, num_threads=threads or 0)
        context, chunk = _check(path, native, found.size)
        model = cls(program, found, context, chunk, threads)
        model.__dict__["_own"] = model._session(native)  # where cached_property keeps it
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .pte, with the tokenizer and the chat template in it, for `load`.

        Raises:
            OSError: the file cannot be written.
        """
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
        """Continue a text, or answer a conversation, from empty caches.

        prompt: text, which is continued as it is; or messages, which the model's chat template
            makes a prompt of: [{"role": "user", "content": "Who are you?"}].
        max_new_tokens: the most to generate; at the end of the context it ends in any case.
        temperature, top_p, seed: see `Sampling`.
        stop: texts that end the answer, and are no part of it.
        stream: called with each piece of text as it comes.

        Raises:
            OptionError: values out of range, or a prompt that the context does not hold.
            ModelError: messages that the model has no template for, or that it refuses.
            GenerationInterrupted: Ctrl-C, with what was generated until then.
        """
        self._own.reset()
        return self._own.generate(
            prompt,
            max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
            stream=stream,
        )

    def session(self) -> Session:
        """Load the program once more, with empty caches; it lies in memory once.

        What a delegate makes of its weights in loading, each session has for itself.

        Raises:
            ExecuTorchError: it cannot be loaded here.
        """
        return self._session(self._load())

    def _session(self, native: NativeProgram) -> Session:
        methods = _methods(native)
        assert methods is not None  # as `lower_llm` made it, or `load` has seen
        return Session(
            native, methods, self.tokenizer, self.context, self.chunk, lambda: self._fingerprint
        )

    @cached_property
    def _fingerprint(self) -> str:
        """The SHA-256 of the program."""
        if isinstance(self.program, LoweredProgram):
            return hashlib.sha256(self.program.buffer).hexdigest()
        with self.program.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def _own(self) -> Session:
        """The session of `generate`."""
        return self.session()

    def _load(self) -> NativeProgram:
        path = self.program.path if isinstance(self.program, SavedProgram) else self._temporary.name
        return NativeProgram(
            path, num_threads=self.threads or 0, backend_options=self.program.load_options
        )

    @cached_property
    def _temporary(self) -> IO[bytes]:
        """A file of the program for all sessions to map; in mapped files weights are aligned."""
        assert isinstance(self.program, LoweredProgram)
        file = tempfile.NamedTemporaryFile(suffix=".pte")  # noqa: SIM115 - as long as this object
        file.write(self.program.buffer)
        file.flush()
        return file


def _methods(native: NativeProgram) -> tuple[str, ...] | None:
    """Return the methods that generate; None if a program has none."""
    names = set(native.method_names)
    return next((each for each in (TWO, ONE) if names.issuperset(each)), None)


def _check(path: Path, native: NativeProgram, vocabulary: int) -> tuple[int, int]:
    """Return the context and the chunk of a program, once its methods are those of a decoder.

    Raises:
        ModelError: they are not.
    """
    methods = _methods(native)
    if methods is None:
        raise ModelError(
            f"{path} has the methods {', '.join(native.method_names)}; expected prefill and "
            "decode, or forward, as lower_llm makes them"
        )
    context, chunk = _constant(path, native, "get_max_context_len"), 1
    for name in methods:
        inputs, outputs = (
            [(each.dtype, each.sizes) for each in some if isinstance(each, TensorInfo)]
            for some in (native.method(name).inputs, native.method(name).outputs)
        )
        most = 1 if name == "decode" else _last_size(inputs)
        chunk = max(chunk, most)
        expected = [("int64", (1, most)), ("int64", (most,))], [("float32", (1, vocabulary))]
        if (inputs, outputs) != expected:
            raise ModelError(
                f"{path}: method {name!r} takes {inputs} and returns {outputs}; expected "
                f"{expected[0]} and {expected[1]}, by the {vocabulary} tokens of the tokenizer"
            )
    return context, chunk


def _last_size(inputs: list[tuple[str, tuple[int, ...]]]) -> int:
    return inputs[0][1][-1] if inputs and inputs[0][1] else 1


def _constant(path: Path, native: NativeProgram, name: str) -> int:
    """Return a size that a program says."""
    if name not in native.method_names:
        raise ModelError(f"{path} has no method {name!r}, which lower_llm would have given it")
    values = native.run(name, [])
    if len(values) != 1 or not isinstance(values[0], int) or values[0] < 1:
        raise ModelError(f"{path}: method {name!r} returns {values}; expected a number of tokens")
    return values[0]
