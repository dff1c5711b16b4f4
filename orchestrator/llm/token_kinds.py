"""What kinds of tokens a GGUF file says that it has, and which of them stand for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.extra import needs
from orchestrator.llm.metadata import Metadata


class Kind(IntEnum):
    """The values of tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def token_kinds(file: Metadata, count: int) -> list[int]:
    """Return the kind of each token; those that the file says nothing of are normal.

    Raises:
        ModelError: it says more kinds than there are tokens.
    """
    kinds = file.get_list("tokenizer.ggml.token_type", int, [])
    if len(kinds) > count:
        raise ModelError(
            f"{file.name}: {len(kinds)} types of tokens for {count} tokens; expected as many"
        )
    return [*kinds, *[Kind.NORMAL] * (count - len(kinds))]


def add_whole(
    made: Any, tokens: Sequence[str], kinds: Sequence[int], which: Mapping[Kind, bool]
) -> None:
    """Have the package's tokenizer take the names of tokens in a text for these.

    which: the kinds of tokens, and whether they are no text themselves.
    """
    library = needs("tokenizers")
    for kind, special in which.items():
        names = [token for token, each in zip(tokens, kinds, strict=True) if each == kind]
        added = [library.AddedToken(name, normalized=False, special=special) for name in names]
        made.add_special_tokens(added) if special else made.add_tokens(added)
