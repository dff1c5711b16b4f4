"""The tokenizer and the chat template that a GGUF file carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.frontend.export import ModelError
from orchestrator.llm.extra import needs
from orchestrator.llm.gguf_file import GgufFile

Message = Mapping[str, str]
"""One turn of a conversation: its "role" ("system", "user", "assistant") and "content"."""

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type

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


class Tokenizer:
    """Text to token ids and back.

    ends: ids that end a text. begin: the id that starts one, or None if the model wants none.
    """

    def __init__(self, file: GgufFile) -> None:
        """Read the tokenizer of a file.

        Raises:
            ModelError: it is of a kind that is not known here, or incomplete.
            ImportError: the package tokenizers is not installed.
        """
        self._file = file.path.name
        self._tokens: list[str] = file.get("tokenizer.ggml.tokens", list)
        self._template = file.metadata.get("tokenizer.chat_template")
        self._library = _byte_pairs(file, self._tokens)
        begin = file.metadata.get("tokenizer.ggml.bos_token_id")
        self._begin_text = "" if begin is None else self._tokens[begin]
        # As llama.cpp has it where a file does not say.
        llama = file.metadata.get("tokenizer.ggml.pre") == "llama-bpe"
        adds = file.metadata.get("tokenizer.ggml.add_bos_token", llama)
        self.begin: int | None = begin if adds else None
        keys = ("eos_token_id", "eot_token_id")
        found = (file.metadata.get(f"tokenizer.ggml.{key}") for key in keys)
        self.ends: tuple[int, ...] = tuple(dict.fromkeys(x for x in found if x is not None))

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self._tokens)

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """Return the tokens of a text; names of control tokens in it stand for these.

        begin: whether the token that starts texts comes first, for models that want one.
        """
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
        if not isinstance(self._template, str):
            raise ModelError(f"{self._file} has no chat template; give the prompt as text")
        needs("jinja2")
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        # A template comes with a file from anywhere.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
        try:
            return environment.from_string(self._template).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                bos_token=self._begin_text,
                eos_token=self._tokens[self.ends[0]] if self.ends else "",
            )
        except TemplateError as error:
            raise ModelError(f"the chat template of {self._file} fails: {error}") from error


def _byte_pairs(file: GgufFile, tokens: Sequence[str]) -> Any:
    library = needs("tokenizers")
    kind = file.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise ModelError(
            f"{file.path.name}: a tokenizer of kind {kind!r}; known: 'gpt2' (byte-level BPE)"
        )
    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    if pre not in _PRE:
        raise ModelError(
            f"{file.path.name}: tokenizer.ggml.pre is {pre!r}; known: {', '.join(_PRE)}"
        )
    merges = [tuple(pair.split(" ", 1)) for pair in file.get("tokenizer.ggml.merges", list)]
    ids = {token: index for index, token in enumerate(tokens)}
    # Llama 3 has words that no merges lead to.
    whole = pre == "llama-bpe"
    made = library.Tokenizer(library.models.BPE(ids, merges, ignore_merges=whole))
    made.pre_tokenizer = _PRE[pre](library)
    if pre == "qwen2":
        made.normalizer = library.normalizers.NFC()
    made.decoder = library.decoders.ByteLevel()
    kinds = file.metadata.get("tokenizer.ggml.token_type", [])
    for special, wanted in ((True, _CONTROL), (False, _USER_DEFINED)):
        names = [tokens[index] for index, each in enumerate(kinds) if each == wanted]
        added = [library.AddedToken(name, normalized=False, special=special) for name in names]
        made.add_special_tokens(added) if special else made.add_tokens(added)
    return made
