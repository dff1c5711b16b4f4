"""What sessions run, by a program that is made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.llm.session import Session
from orchestrator.llm.tokenizer import Tokenizer
from tests.llm import made_up


class Spells:
    """In place of a native program: goes on with the next letter; fails when it is told to.

    ran: the tokens of each run.
    """

    def __init__(self) -> None:
        self.ran: list[list[int]] = []
        self.fails: BaseException | None = None
        self.after = 0

    def run(self, name: str, inputs: Sequence[Tensor]) -> list[Any]:
        if self.fails is not None and len(self.ran) == self.after:
            raise self.fails
        tokens, positions = (each.flatten().tolist() for each in inputs)
        assert (name == "decode") == (len(tokens) == 1)
        assert positions == list(range(positions[0], positions[0] + len(tokens)))
        self.ran.append(tokens)
        scores = torch.zeros(1, len(made_up.TOKENS))
        scores[0, (tokens[-1] + 1) % scores.shape[1]] = 1
        return [scores]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made_up.tokenizer(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def spells() -> Spells:
    return Spells()


@pytest.fixture
def session(spells: Spells, tokenizer: Tokenizer) -> Session:
    return Session(spells, ("prefill", "decode"), tokenizer, 64, 4, str)  # type: ignore[arg-type]


def test_what_the_caches_hold_is_not_run_again(
    session: Session, spells: Spells, tokenizer: Tokenizer
) -> None:
    assert session.generate("ab", 3).text == "cde"
    # There is no room in the caches yet for what was drawn last.
    assert tokenizer.decode(session.tokens) == "abcd"
    spells.ran.clear()
    found = session.generate("abcdexy", 2)
    assert (found.text, found.prompt_tokens, found.held_tokens) == ("z{", 7, 4)
    assert list(map(tokenizer.decode, spells.ran)) == ["exy", "z"]


def test_a_prompt_that_is_held_whole_is_run_from_its_last_token(
    session: Session, spells: Spells, tokenizer: Tokenizer
) -> None:
    session.generate("abcd", 4)
    spells.ran.clear()
    assert session.generate("abc", 1).text == "d"
    assert list(map(tokenizer.decode, spells.ran)) == ["c"]
    assert tokenizer.decode(session.tokens) == "abc"


def test_of_a_conversation_only_what_is_new_is_run(session: Session, spells: Spells) -> None:
    messages = [{"role": "user", "content": "hi"}]
    answer = session.generate(messages, 3)
    messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "ho"}]
    spells.ran.clear()
    found = session.generate(messages, 1)
    # <|start|>user: hi<|end|><|start|>; then this template has the role of the answer.
    assert found.held_tokens == 1 + len("user: hi") + 2
    assert sum(map(len, spells.ran)) == found.prompt_tokens - found.held_tokens


def test_reset_forgets(session: Session, spells: Spells) -> None:
    session.generate("abcd", 2)
    session.reset()
    assert session.tokens == ()
    assert session.generate("abcd", 2).held_tokens == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no memory")])
def test_a_run_that_fails_leaves_what_is_sure(
    session: Session, spells: Spells, tokenizer: Tokenizer, error: BaseException
) -> None:
    session.generate("abcdefgh", 1)
    spells.ran.clear()
    # Of the parts "mnop", "qrst" and "uv" the second fails.
    spells.fails, spells.after = error, 1
    with pytest.raises(type(error)):
        session.generate("abcdmnopqrstuv", 1)
    assert tokenizer.decode(session.tokens) == "abcdmnop"
    spells.fails = None
    assert session.generate("abcdmnopqrstuv", 1).text == "w"
    assert spells.ran[1:] == [tokenizer.encode("qrst"), tokenizer.encode("uv")]
