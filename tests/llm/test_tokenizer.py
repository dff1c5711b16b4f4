"""Text to tokens and back, with what the file carries."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from orchestrator import ModelError, OptionError
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.tokenizer import Tokenizer
from tests.llm import made_up
from tests.llm.made_up import tokenizer

TEXTS = ["the heath", " two\n\n spaces  and\ttabs ", "2026 is 7*17*17+3", "naïve café, 東京 🙂", ""]


@pytest.mark.parametrize("pre", ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_from_its_tokens(tmp_path: Path, pre: str, text: str) -> None:
    made = tokenizer(tmp_path, pre=pre)
    tokens = made.encode(text)
    assert made.decode(tokens) == text
    complete = made.decoder()
    assert "".join(map(complete, tokens)) == text


def test_pairs_are_merged(tmp_path: Path) -> None:
    made = tokenizer(tmp_path)
    names = [made_up.TOKENS[token] for token in made.encode("a the")]
    assert names == ["a", "Ġt", "he"]


def test_texts_begin_with_a_token_where_the_model_wants_one(tmp_path: Path) -> None:
    """The template writes it itself."""
    said = {**tokenizer(tmp_path).source, "tokenizer.ggml.bos_token_id": 258}
    for adds, expected in ((True, [258, 64]), (False, [64])):
        made = Tokenizer(Metadata("file", {**said, "tokenizer.ggml.add_bos_token": adds}))
        assert made.encode("a") == expected
        assert made.encode("a", begin=False) == [64]


def test_a_tokenizer_is_saved_as_the_package_reads_it(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, pre="llama-bpe")
    made.save(tmp_path / "tokenizer.json")
    read = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert read.encode(text).ids == made.encode(text)


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    made = tokenizer(tmp_path)
    with pytest.raises(OptionError, match="cannot be written as UTF-8"):
        made.encode(made.chat([{"role": "user", "content": "\udcff"}]))


def test_control_tokens_are_tokens_in_prompts_and_nothing_in_texts(tmp_path: Path) -> None:
    made = tokenizer(tmp_path)
    tokens = made.encode("<|start|>the<|end|>")
    assert tokens[0] == len(made_up.TOKENS) - 2
    assert (tokens[-1],) == made.ends
    assert made.decode(tokens) == "the"


def test_characters_are_complete_before_they_are_shown(tmp_path: Path) -> None:
    made = tokenizer(tmp_path)
    pieces = list(map(made.decoder(), made.encode("é!")))
    assert pieces == ["", "é", "!"]


def test_a_conversation_goes_through_the_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    text = "<|start|>user: hi<|end|><|start|>assistant: ho<|end|><|start|>"
    assert tokenizer(tmp_path).chat(messages) == text


def test_templates_may_leave_a_loop(tmp_path: Path) -> None:
    """As those written for transformers do."""
    made = tokenizer(tmp_path, template="{% for each in messages %}a{% break %}{% endfor %}")
    assert made.chat([{"role": "user", "content": "b"}] * 3) == "a"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system prompt') }}", "no system prompt"),
        ("{% for", "unexpected|expected"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ],
    ids=["refuses", "is broken", "is hostile"],
)
def test_templates_that_fail_are_errors(tmp_path: Path, template: str, message: str) -> None:
    made = tokenizer(tmp_path, template=template)
    with pytest.raises(ModelError, match=rf"chat template of file\.gguf fails: .*({message})"):
        made.chat([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("key", "message"),
    [("model", r"tokenizer of kind 'other'"), ("pre", r"tokenizer\.ggml\.pre is 'other'; known:")],
)
def test_unknown_tokenizers_are_named(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer(tmp_path, **{key: "other"})
