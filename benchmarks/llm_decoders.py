"""What benchmarks/llm.py and llama.py compare: lowered decoders and llama.cpp's, called alike.

Imports no torch by itself: its memory would hide what is measured.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orchestrator.native import NativeProgram

Decoder: TypeAlias = "Callable[[Sequence[int], int], NDArray[np.float32]]"
"""Runs tokens from a position on; returns the scores of the next one, float32 [vocabulary]."""

OURS, PLAIN, REPACKED = "ours", "llama.cpp", "llama.cpp, repacked"


def load(whose: str, path: str | os.PathLike[str], threads: int, context: int) -> Decoder:
    """Loads a decoder of those named above, from a .pte or from a GGUF file.

    Raises:
        RuntimeError: it cannot be loaded.
    """
    if whose == OURS:
        return Ours(path, threads)
    return LlamaCpp(path, threads, context, repacked=whose == REPACKED)


class Ours:
    """A lowered decoder of the methods "prefill" and "decode"."""

    def __init__(self, path: str | os.PathLike[str], threads: int) -> None:
        """Loads both methods."""
        self._program = NativeProgram(path, num_threads=threads)
        for name in ("prefill", "decode"):
            self._program.method(name)

    def __call__(self, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        """Runs at most as many tokens as "prefill" takes at once."""
        method = "decode" if len(tokens) == 1 else "prefill"
        positions = np.arange(first, first + len(tokens))
        (scores,) = self._program.run(method, [np.array([tokens], np.int64), positions])
        return scores[0]  # type: ignore[index, return-value]


class LlamaCpp:
    """llama.cpp's decoder of a GGUF file.

    repacked: weights are laid out anew in loading where llama.cpp has faster kernels for that.
    """

    def __init__(
        self, path: str | os.PathLike[str], threads: int, context: int, *, repacked: bool
    ) -> None:
        """Loads the file.

        Raises:
            RuntimeError: llama.cpp cannot load it.
        """
        self._library = library = llama_cpp()
        options = library.llama_model_default_params()
        options.use_extra_bufts = repacked
        model = library.llama_model_load_from_file(os.fsencode(path), options)
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {path}; expected a GGUF file that it knows")
        options = library.llama_context_default_params()
        options.n_ctx = context
        options.n_threads = options.n_threads_batch = threads
        self._context = library.llama_init_from_model(model, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        self._caches = library.llama_get_memory(self._context)
        self._size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))

    def __call__(self, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        """The scores are valid until the next call.

        Raises:
            RuntimeError: llama.cpp fails.
        """
        library = self._library
        library.llama_memory_seq_rm(self._caches, 0, first, -1)
        ids = (library.llama_token * len(tokens))(*tokens)
        status = library.llama_decode(self._context, library.llama_batch_get_one(ids, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for {len(tokens)} tokens")
        scores = library.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(scores, (self._size,))


class ExecuTorch:
    """ExecuTorch's own program of a decoder, in its Python module; it has one method, "forward"."""

    def __init__(self, path: str | os.PathLike[str], threads: int) -> None:
        """Loads the program, and the operators that export_llama has it call."""
        module = importlib.import_module("executorch.extension.pybindings.portable_lib")
        importlib.import_module("executorch.extension.llm.custom_ops.custom_ops")
        importlib.import_module("executorch.kernels.quantized")
        self._torch = importlib.import_module("torch")
        self._program = module._load_for_executorch(os.fspath(path))
        module._unsafe_reset_threadpool(threads)  # one pool for all programs

    def __call__(self, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        """Runs tokens at once."""
        torch = self._torch
        (scores,) = self._program.forward([torch.tensor([tokens]), torch.tensor([first])])
        return scores[0].numpy()  # type: ignore[no-any-return]


def llama_cpp() -> Any:
    """The module of llama.cpp's functions in the package llama-cpp-python; it logs nothing.

    Raises:
        ImportError: the package, or one that it needs, is not installed.
    """
    module = importlib.import_module("llama_cpp.llama_cpp")
    if not hasattr(module, "silent"):
        module.silent = module.llama_log_callback(lambda *_: None)  # kept, as llama.cpp calls it
        module.llama_log_set(module.silent, ctypes.c_void_p())
        module.llama_backend_init()
    return module


def one_by_one(decode: Decoder) -> Decoder:
    """A decoder that has another run every token alone."""

    def run(tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        for position, token in enumerate(tokens[:-1], first):
            decode([token], position)
        return decode(tokens[-1:], first + len(tokens) - 1)

    return run


def private_bytes() -> int:
    """The memory that this process has written and shares with none."""
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        lines = (line.split() for line in file)
        return next(int(words[1]) * 1024 for words in lines if words[0] == "Private_Dirty:")


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many items two sequences begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    differing = (index for index, (one, other) in pairs if one != other)
    return next(differing, min(len(first), len(second)))


def greedy(decode: Decoder, prompt: Sequence[int], count: int) -> list[int]:
    """The best `count` tokens after a prompt, those that end a text among them."""
    tokens = list(prompt)
    scores = decode(tokens, 0)
    while True:
        tokens.append(int(scores.argmax()))
        if len(tokens) == len(prompt) + count:
            return tokens[len(prompt) :]
        scores = decode(tokens[-1:], len(tokens) - 1)


def lead(decode: Decoder, tokens: Sequence[int], one: int, other: int) -> float:
    """How much better `one` scores than `other` after some tokens."""
    scores = decode(tokens, 0)
    return float(scores[one]) - float(scores[other])
