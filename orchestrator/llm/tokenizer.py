"""The tokenizer and the chat template of a model: as GGUF has them, or a whole tokenizer.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.byte_pairs import byte_pairs
from orchestrator.llm.extra import failing_as, needs
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.sentence_pieces import as_tokenizer_json
from orchestrator.llm.tokenizer_keys import (
    ADDS,
    ENDS,
    JSON,
    JSON_KEYS,
    KEYS,
    SIZE,
    TEMPLATE,
    is_whole,
    token_key,
)
from orchestrator.options import OptionError

Message = Mapping[str, str]
"""One turn of a conversation: its "role" ("system", "user", "assistant") and "content"."""


class Tokenizer:
    """Text to token ids and back.

    ends: ids that end a text. begin: the id that starts one, or None if the model wants none.
    source: the metadata that it was made of, from which it can be made again.
    """

    def __init__(self, file: Metadata) -> None:
        """Read the tokenizer of a file, from the values of `KEYS` or, without these, `JSON_KEYS`.

        Raises:
            ModelError: it is of a kind that is not known here, incomplete or damaged.
            ImportError: the package tokenizers is not installed.
        """
        file = _known_kind(file)
        self.source: Mapping[str, Any] = {
            key: file.metadata[key]
            for key in (JSON_KEYS if is_whole(file) else KEYS)
            if key in file.metadata
        }
        self._file = file.name
        self._template = _template(file)
        if is_whole(file):
            self._library = read_whole(file)
            self._size = file.get_size(SIZE)
        else:
            tokens: list[str] = file.get_list("tokenizer.ggml.tokens", str)
            self._library = byte_pairs(file, tokens)
            self._size = len(tokens)
        begin = self._token(file, "bos")
        self._begin_text = "" if begin is None else self._name(begin)
        # As llama.cpp has it where a file does not say.
        llama = file.metadata.get("tokenizer.ggml.pre") == "llama-bpe"
        adds = file.get(ADDS, bool) if ADDS in file.metadata else llama
        self.begin: int | None = begin if adds else None
        found = [self._token(file, kind) for kind in ("eos", "eot")]
        found += [self._checked(token, ENDS) for token in file.get_list(ENDS, int, [])]
        self.ends: tuple[int, ...] = tuple(dict.fromkeys(x for x in found if x is not None))

    def _token(self, file: Metadata, kind: str) -> int | None:
        """Return the id of a token that a file names; None if it does not."""
        key = token_key(kind)
        return self._checked(int(file.get(key, int)), key) if key in file.metadata else None

    def _checked(self, token: int, key: str) -> int:
        if not 0 <= token < self._size:
            raise ModelError(
                f"{self._file}: {key} is {token}; expected one of the {self._size} tokens"
            )
        return token

    def _name(self, token: int) -> str:
        """Return the text of a token, control tokens included."""
        return self._library.id_to_token(token) or ""

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self._size

    @property
    def has_template(self) -> bool:
        """Whether conversations can be made prompts of."""
        return self._template is not None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a tokenizer.json, as ExecuTorch's runners and the package tokenizers read it.

        Raises:
            OSError: the file cannot be written.
        """
        Path(path).write_text(self._library.to_str(), encoding="utf-8")

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """Return the tokens of a text; names of control tokens in it stand for these.

        begin: whether the token that starts texts comes first, for models that want one.

        Raises:
            OptionError: there are halves of characters in it, as of bytes that are not UTF-8.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise OptionError(f"the text cannot be written as UTF-8: {error}") from error
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return [self.begin, *ids] if begin and self.begin is not None else ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without control tokens; broken characters become U+FFFD."""
        return str(self._library.decode(list(tokens), skip_special_tokens=True))

    def decoder(self) -> Callable[[int], str]:
        """Return what gives, token by token, the text that is complete by then."""
        stream = needs("tokenizers").decoders.DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._library, token) or ""

    def chat(self, messages: Sequence[Message]) -> str:
        """Return the prompt for an answer to a conversation, by the model's own template.

        Raises:
            ModelError: the file has no template, or the template refuses the messages.
            ImportError: the package jinja2 is not installed.
        """
        if self._template is None:
            raise ModelError(f"{self._file} has no chat template; give the prompt as text")
        needs("jinja2")
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        # A template comes with a file from anywhere.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
        try:
            return environment.from_string(self._template).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                bos_token=self._begin_text,
                eos_token=self._name(self.ends[0]) if self.ends else "",
            )
        except Exception as error:  # whatever the template's own code runs into
            raise ModelError(f"the chat template of {self._file} fails: {error}") from error


def _known_kind(file: Metadata) -> Metadata:
    """Return the file with a tokenizer of byte pairs or a tokenizer.json; others are refused."""
    if is_whole(file):
        return file
    file.get("tokenizer.ggml.tokens", list)  # without them it is damaged, of whatever kind
    kind = file.get("tokenizer.ggml.model", str)
    if kind == "llama":
        return as_tokenizer_json(file)
    if kind != "gpt2":
        raise ModelError(
            f"{file.name}: a tokenizer of kind {kind!r}; known: 'gpt2' (byte-level BPE), 'llama' "
            "(SentencePiece's BPE)"
        )
    return file


def _template(file: Metadata) -> str | None:
    if TEMPLATE not in file.metadata:
        return None
    template = str(file.get(TEMPLATE, str))
    try:
        template.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{file.name}: {TEMPLATE} cannot be written as UTF-8: {error}") from error
    return template


def read_whole(file: Metadata) -> Any:
    """Return the package's tokenizer that the text under `JSON` describes.

    Raises:
        ModelError: it is damaged or of a kind that is not known here, or has tokens beyond `SIZE`.
        ImportError: the package tokenizers is not installed.
    """
    library, text = needs("tokenizers"), file.get(JSON, str)
    with failing_as(f"{file.name}: its tokenizer.json makes no tokenizer"):
        made = library.Tokenizer.from_str(text)
        kind = type(made.model).__name__
        last = max(made.get_vocab(with_added_tokens=True).values(), default=-1)
    if kind != "BPE":
        raise ModelError(f"{file.name}: a tokenizer of kind {kind!r}; known: 'BPE'")
    size = file.get_size(SIZE)
    if last >= size:
        raise ModelError(
            f"{file.name}: its tokenizer.json has a token {last}; expected less than the "
            f"vocabulary of the model, {size}"
        )
    made.no_truncation()
    made.no_padding()
    return made
