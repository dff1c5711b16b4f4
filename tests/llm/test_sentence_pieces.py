"""SentencePiece tokenizers from GGUF: tokens are those of its algorithm, written out plainly."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest

from orchestrator import ModelError
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.stored_tokenizer import pack_tokenizer, unpack_tokenizer
from orchestrator.llm.token_kinds import Kind
from orchestrator.llm.tokenizer import Tokenizer

CONTROL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# From the best on; some share an end or a beginning, so that what is merged first matters.
PIECES = [
    "▁t",
    "he",
    "▁a",
    "in",
    "▁the",
    "er",
    "th",
    "▁▁",
    "ther",
    "▁in",
    "ing",
    "aa",
    "aaaa",
    "é▁",
]
LETTERS = ["▁", *"abcdefghijklmnopqrstuvwxyz", "é", "東"]
TOKENS = [*CONTROL, *BYTES, *PIECES, *LETTERS, "[INST]"]
KINDS = [
    Kind.UNKNOWN,
    Kind.CONTROL,
    Kind.CONTROL,
    *[Kind.BYTE] * len(BYTES),
    *[Kind.NORMAL] * (len(PIECES) + len(LETTERS)),
    Kind.USER_DEFINED,
]
SCORES = [
    *[0.0] * (len(CONTROL) + len(BYTES)),
    *(-float(rank) for rank in range(len(PIECES) + len(LETTERS))),
    0.0,
]
SAID: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": SCORES,
    "tokenizer.ggml.token_type": [int(kind) for kind in KINDS],
}


def tokenizer(**said: Any) -> Tokenizer:
    more = {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    return Tokenizer(Metadata("file.gguf", SAID | more))


def expected(text: str) -> list[str]:
    """Of two neighbours that make up a token, those of the best are joined, the first of equals."""
    symbols = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        pairs = [
            (-SCORES[TOKENS.index(joined)], index)
            for index, joined in enumerate(map("".join, pairwise(symbols)))
            if joined in PIECES
        ]
        if not pairs:
            break
        _, index = min(pairs)
        symbols[index : index + 2] = ["".join(symbols[index : index + 2])]
    found: list[str] = []
    for symbol in symbols:
        known = symbol in TOKENS
        found += [symbol] if known else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return found


def names(tokens: list[int]) -> list[str]:
    return [TOKENS[token] for token in tokens]


def test_tokens_are_those_of_sentencepiece() -> None:
    made = tokenizer()
    source = random.Random(1)
    parts = [*"aeinrthg", "é", "東", "🙂", " ", "the", "ing", "aa", "\n"]
    texts = ["".join(source.choices(parts, k=source.randrange(24))) for _ in range(400)]
    for text in ["", " ", "the other", "aaaaaaa", "naïve", *texts]:
        tokens = made.encode(text, begin=False)
        assert names(tokens) == expected(text), text
        assert made.decode(tokens) == (f" {text}" if text else "")
        assert "".join(map(made.decoder(), tokens)) == made.decode(tokens)


def test_texts_begin_and_end_as_llama_cpp_has_it_where_the_file_does_not_say() -> None:
    made = tokenizer()
    assert names(made.encode("a")) == ["<s>", "▁a"]
    assert made.ends == (2,)
    assert names(tokenizer(add_bos_token=False).encode("a")) == ["▁a"]
    assert tokenizer(eos_token_id=5, eot_token_id=6).ends == (5, 6)


def test_no_space_comes_first_where_the_file_wants_none() -> None:
    made = tokenizer(add_space_prefix=False)
    tokens = made.encode("a the", begin=False)
    assert names(tokens) == ["a", "▁the"]
    assert made.decode(tokens) == "a the"


def test_names_of_tokens_are_tokens_and_texts_after_them_begin_anew() -> None:
    made = tokenizer()
    tokens = made.encode("<s>[INST]the</s>", begin=False)
    assert names(tokens) == ["<s>", "[INST]", "▁the", "</s>"]
    assert made.decode(tokens) == "[INST] the"


def test_it_comes_back_from_a_program() -> None:
    made = tokenizer(eot_token_id=7)
    read = unpack_tokenizer(Path("file.pte"), pack_tokenizer(made))
    assert read.encode("the other") == made.encode("the other")
    assert (read.begin, read.ends, read.size) == (1, (2, 7), len(TOKENS))


def test_it_is_read_from_a_file(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "file.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores(SCORES)
    writer.add_token_types([int(kind) for kind in KINDS])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = Tokenizer(GgufFile(tmp_path / "file.gguf"))
    assert read.encode("the other") == tokenizer().encode("the other")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"scores": SCORES[1:]}, f"{len(TOKENS) - 1} scores for {len(TOKENS)} tokens"),
        ({"scores": [*SCORES[1:], float("nan")]}, r"scores\[\d+\] is nan"),
        ({"scores": None}, r"tokenizer\.ggml\.scores is missing; expected list"),
        ({"token_type": [1] * 400}, "400 types of tokens"),
        ({"unknown_token_id": 4000}, "unknown_token_id is 4000; expected one of the"),
        ({"eos_token_id": -1}, "is -1; expected one of the"),
        ({"bos_token_id": 4000}, "bos_token_id is 4000; expected one of the"),
    ],
)
def test_damaged_ones_are_errors(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer(**said)
