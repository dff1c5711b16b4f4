"""Byte-level tokenizers, as GGUF has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.extra import failing_as, needs
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.token_kinds import Kind, add_whole, token_kinds

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _words(digits: int) -> str:
    """The pattern by which Llama 3 and Qwen2 cut text; `digits` of a number are a word."""
    number = r"\p{N}" if digits == 1 else rf"\p{{N}}{{1,{digits}}}"
    return (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _gpt2(library: Any) -> Any:
    return library.pre_tokenizers.ByteLevel(add_prefix_space=False)


def _single_digits(library: Any) -> Any:
    kinds = library.pre_tokenizers
    return kinds.Sequence([kinds.Digits(individual_digits=True), _gpt2(library)])


def _by_pattern(digits: int) -> Callable[[Any], Any]:
    def make(library: Any) -> Any:
        kinds = library.pre_tokenizers
        split = kinds.Split(library.Regex(_words(digits)), "isolated")
        return kinds.Sequence([split, kinds.ByteLevel(add_prefix_space=False, use_regex=False)])

    return make


# By tokenizer.ggml.pre: how text is cut before pairs are merged.
_PRE: Mapping[str, Callable[[Any], Any]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "llama-bpe": _by_pattern(3),
    "qwen2": _by_pattern(1),
    "smollm": _single_digits,
}


def byte_pairs(file: Metadata, tokens: Sequence[str]) -> Any:
    """Return the package's tokenizer of a GGUF file whose tokenizer.ggml.model is "gpt2".

    Raises:
        ModelError: it is damaged, or cuts text in a way that is not known here.
        ImportError: the package tokenizers is not installed.
    """
    library = needs("tokenizers")
    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(pre, str) or pre not in _PRE:
        raise ModelError(f"{file.name}: tokenizer.ggml.pre is {pre!r}; known: {', '.join(_PRE)}")
    merges = [_pair(file, pair) for pair in file.get_list("tokenizer.ggml.merges", str)]
    ids = {token: index for index, token in enumerate(tokens)}
    # Llama 3 has words that no merges lead to.
    whole = pre == "llama-bpe"
    with failing_as(f"{file.name}: tokens and merges make no tokenizer"):
        made = library.Tokenizer(library.models.BPE(ids, merges, ignore_merges=whole))
    made.pre_tokenizer = _PRE[pre](library)
    if pre == "qwen2":
        made.normalizer = library.normalizers.NFC()
    made.decoder = library.decoders.ByteLevel()
    kinds = token_kinds(file, len(tokens))
    add_whole(made, tokens, kinds, {Kind.CONTROL: True, Kind.USER_DEFINED: False})
    return made


def _pair(file: Metadata, merge: str) -> tuple[str, str]:
    first, space, second = merge.partition(" ")
    if not space:
        raise ModelError(
            f"{file.name}: tokenizer.ggml.merges has {merge!r}; expected two tokens with a space "
            "between them"
        )
    return first, second
