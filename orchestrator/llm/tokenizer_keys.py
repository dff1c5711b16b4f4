"""The metadata that tokenizers are made of, by the names that GGUF has for it."""

from __future__ import annotations

from orchestrator.llm.metadata import Metadata


def token_key(kind: str) -> str:
    """Return the key of the id of a token: the "bos" or the "eos"."""
    return f"tokenizer.ggml.{kind}_token_id"


ADDS = "tokenizer.ggml.add_bos_token"
TEMPLATE = "tokenizer.chat_template"
KEYS = (
    *(f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges")),
    ADDS,
    *map(token_key, ("bos", "eos", "eot")),
    TEMPLATE,
)
"""The metadata that a tokenizer is made of."""
JSON = "tokenizer.huggingface.json"  # GGUF's key for the text of one
SIZE, ENDS = "orchestrator.vocabulary_size", "orchestrator.end_token_ids"
JSON_KEYS = (JSON, SIZE, ENDS, ADDS, *map(token_key, ("bos", "eos")), TEMPLATE)
"""The metadata that a tokenizer is made of which a tokenizer.json describes."""


def is_whole(file: Metadata) -> bool:
    """Return whether a tokenizer.json describes the tokenizer, and GGUF's own keys do not."""
    return JSON in file.metadata and "tokenizer.ggml.model" not in file.metadata
