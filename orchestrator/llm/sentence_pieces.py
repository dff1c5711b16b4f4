"""SentencePiece's tokenizers of pairs, as GGUF has them: those of Llama 2, TinyLlama and Mistral.

A file has the score of each token instead of a list of pairs to merge; characters without a token
become bytes. What is made here is the tokenizer.json of such a tokenizer, as there is no faster way
to the list of pairs than to look all of them up, which takes a while.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.extra import failing_as, needs
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.token_kinds import Kind, add_whole, token_kinds
from orchestrator.llm.tokenizer_keys import ADDS, ENDS, JSON, SIZE, TEMPLATE, token_key

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_PREFIX = "tokenizer.ggml.add_space_prefix"
# What llama.cpp takes where a file does not say.
_BEGIN, _END, _UNKNOWN = 1, 2, 0


def as_tokenizer_json(file: Metadata) -> Metadata:
    """Return what a GGUF file says whose tokenizer.ggml.model is "llama", under `JSON_KEYS`.

    Raises:
        ModelError: it is damaged.
        ImportError: the package tokenizers is not installed.
    """
    tokens: list[str] = file.get_list("tokenizer.ggml.tokens", str)
    ends = [_token(file, "eos", len(tokens), _END), _token(file, "eot", len(tokens))]
    said: dict[str, Any] = {
        JSON: _made(file, tokens).to_str(),
        SIZE: len(tokens),
        ENDS: [token for token in ends if token is not None],
        ADDS: file.get(ADDS, bool) if ADDS in file.metadata else True,
    }
    begin = _token(file, "bos", len(tokens), _BEGIN)
    if begin is None:
        said[ADDS] = False
    else:
        said[token_key("bos")] = begin
    if TEMPLATE in file.metadata:
        said[TEMPLATE] = file.metadata[TEMPLATE]
    return Metadata(file.name, said)


def _token(file: Metadata, kind: str, count: int, default: int | None = None) -> int | None:
    """Return the id that a file has for a token, or the default if there is such a token."""
    key = token_key(kind)
    if key in file.metadata:
        return int(file.get(key, int))
    return default if default is not None and default < count else None


def _made(file: Metadata, tokens: Sequence[str]) -> Any:
    library = needs("tokenizers")
    kinds = token_kinds(file, len(tokens))
    unknown = _token(file, "unknown", len(tokens), _UNKNOWN)
    if unknown is not None and not 0 <= unknown < len(tokens):
        raise ModelError(
            f"{file.name}: {token_key('unknown')} is {unknown}; expected one of the {len(tokens)} "
            "tokens"
        )
    with failing_as(f"{file.name}: tokens and scores make no tokenizer"):
        made = library.Tokenizer(
            library.models.BPE(
                {token: index for index, token in enumerate(tokens)},
                list(_merges(file, tokens, kinds)),
                unk_token=None if unknown is None else tokens[unknown],
                fuse_unk=True,
                byte_fallback=True,
            )
        )
    steps = [library.normalizers.Replace(" ", _SPACE)]
    if _PREFIX not in file.metadata or file.get(_PREFIX, bool):
        steps.insert(0, library.normalizers.Prepend(_SPACE))
    made.normalizer = library.normalizers.Sequence(steps)
    # The space that was put before a text is not taken off: tokens that go on with one have theirs.
    made.decoder = library.decoders.Sequence(
        [
            library.decoders.Replace(_SPACE, " "),
            library.decoders.ByteFallback(),
            library.decoders.Fuse(),
        ]
    )
    whole = {Kind.CONTROL: True, Kind.UNKNOWN: True, Kind.USER_DEFINED: False}
    add_whole(made, tokens, kinds, whole)
    return made


def _merges(
    file: Metadata, tokens: Sequence[str], kinds: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """The pairs of tokens that make up another, those of better tokens first."""
    scores: list[float] = file.get_list("tokenizer.ggml.scores", float)
    if len(scores) != len(tokens):
        raise ModelError(
            f"{file.name}: {len(scores)} scores for {len(tokens)} tokens; expected as many"
        )
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise ModelError(f"{file.name}: tokenizer.ggml.scores[{index}] is {score}")
    texts = [index for index, kind in enumerate(kinds) if kind in (Kind.NORMAL, Kind.UNUSED)]
    known = {tokens[index] for index in texts}
    for index in sorted(texts, key=lambda index: -scores[index]):
        token = tokens[index]
        for cut in range(1, len(token)):
            if token[:cut] in known and token[cut:] in known:
                yield token[:cut], token[cut:]
