"""Generating, with scores that are made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from orchestrator import OptionError
from orchestrator.llm.generate import (
    Generation,
    GenerationInterrupted,
    generate,
    in_chunks,
)
from orchestrator.llm.sampling import Sampling
from orchestrator.llm.stopping import StopAt
from orchestrator.llm.tokenizer import Tokenizer
from tests.llm import made_up


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made_up.tokenizer(tmp_path_factory.mktemp("llm"))


class Says:
    """Scores by which a prompt is always answered with the same tokens."""

    def __init__(self, tokens: Sequence[int], prompt: int) -> None:
        self.tokens, self.prompt = tokens, prompt
        self.places: list[int] = []

    def __call__(self, tokens: Sequence[int], first: int) -> Tensor:
        self.places += range(first, first + len(tokens))
        scores = torch.zeros(len(made_up.TOKENS))
        scores[self.tokens[first + len(tokens) - self.prompt]] = 1
        return scores


def answer(
    tokenizer: Tokenizer, text: str, *, context: int = 32, most: int = 30, stop: Sequence[str] = ()
) -> tuple[Generation, list[str], Says]:
    prompt, pieces = tokenizer.encode("say:"), list[str]()
    says = Says([*tokenizer.encode(text), *tokenizer.ends], len(prompt))
    found = generate(
        says,
        tokenizer,
        prompt,
        context=context,
        max_new_tokens=most,
        sampling=Sampling(),
        stop=stop,
        stream=pieces.append,
    )
    assert "".join(pieces) == found.text
    assert says.places == list(range(len(says.places)))
    return found, pieces, says


def test_text_goes_on_until_the_model_ends_it(tokenizer: Tokenizer) -> None:
    found, pieces, _ = answer(tokenizer, "yes, é")
    assert (found.text, found.ending) == ("yes, é", "end")
    assert found.tokens == tuple(tokenizer.encode("yes, é"))
    assert pieces == ["y", "e", "s", ",", " ", "é"]


def test_a_text_ends_before_a_stop_text_of_which_nothing_is_shown(tokenizer: Tokenizer) -> None:
    found, pieces, _ = answer(tokenizer, "one END two", stop=["END", "ENDLESS"])
    assert (found.text, found.ending) == ("one ", "stop")
    assert "E" not in "".join(pieces)
    assert answer(tokenizer, "one END", stop=["ENDS"])[0].text == "one END"


def test_so_many_tokens_are_generated_at_most(tokenizer: Tokenizer) -> None:
    found, _, says = answer(tokenizer, "yes, yes", most=3)
    assert (found.text, found.ending, len(says.places)) == ("yes", "length", 4 + 2)


def test_generating_ends_where_the_caches_are_full(tokenizer: Tokenizer) -> None:
    found, _, says = answer(tokenizer, "yes, yes", context=6)
    # Two more fit; what comes after the second is known, though there is no place for it.
    assert (found.text, found.ending, len(says.places)) == ("yes", "context", 6)


def test_a_prompt_beyond_the_context_names_both_numbers(tokenizer: Tokenizer) -> None:
    with pytest.raises(OptionError, match="prompt has 4 tokens, and the context holds 3"):
        answer(tokenizer, "yes", context=3)


def test_an_interrupt_tells_what_was_generated(tokenizer: Tokenizer) -> None:
    class Interrupted(Says):
        def __call__(self, tokens: Sequence[int], first: int) -> Tensor:
            if len(self.places) > 6:
                raise KeyboardInterrupt
            return super().__call__(tokens, first)

    prompt, pieces = tokenizer.encode("say:"), list[str]()
    says = Interrupted(tokenizer.encode("yes, yes"), len(prompt))
    with pytest.raises(GenerationInterrupted) as caught:
        generate(
            says,
            tokenizer,
            prompt,
            context=32,
            max_new_tokens=30,
            sampling=Sampling(),
            stop=["s, no"],
            stream=pieces.append,
        )
    found = caught.value.generation
    # What was held back as a beginning of the stop text is shown as well.
    assert (found.text, "".join(pieces), found.ending) == ("yes,", "yes,", "interrupted")
    assert len(found.tokens) == 4


@pytest.mark.parametrize("most", [0, -1])
def test_a_prompt_without_an_answer_is_refused(tokenizer: Tokenizer, most: int) -> None:
    with pytest.raises(OptionError, match=f"max_new_tokens is {most}"):
        answer(tokenizer, "yes", most=most)


def test_an_empty_prompt_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(OptionError, match="prompt has no tokens"):
        generate(Says([], 0), tokenizer, [], context=4, max_new_tokens=1, sampling=Sampling())


@pytest.mark.parametrize("stop", ["END", ["END", ""]])
def test_stop_is_a_list_of_texts(stop: Sequence[str]) -> None:
    with pytest.raises(OptionError, match="stop is"):
        StopAt(stop)


def test_prompts_run_in_chunks_and_what_is_left_over_alone() -> None:
    calls: list[tuple[str, list[int], list[int]]] = []

    def method(name: str) -> object:
        def run(tokens: Tensor, positions: Tensor) -> Tensor:
            calls.append((name, tokens[0].tolist(), positions.tolist()))
            return torch.zeros(1, 3)

        return run

    decode = in_chunks(method("prefill"), method("decode"), 4)  # type: ignore[arg-type]
    decode([7, 8, 9, 7, 8], 2)
    decode([9], 7)
    assert calls == [
        ("prefill", [7, 8, 9, 7], [2, 3, 4, 5]),
        ("decode", [8], [6]),
        ("decode", [9], [7]),
    ]


def test_tokens_are_drawn_by_their_probabilities() -> None:
    scores = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = Sampling(temperature=1.0, seed=1).sampler()
    counts = torch.tensor([drawn(scores) for _ in range(4000)]).bincount(minlength=3) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.2]), atol=0.03, rtol=0)


def test_top_p_leaves_the_best_tokens() -> None:
    scores = torch.tensor([0.1, 0.5, 0.4]).log()
    drawn = Sampling(temperature=1.0, top_p=0.6, seed=1).sampler()
    assert {drawn(scores) for _ in range(200)} == {1, 2}
    alone = Sampling(temperature=1.0, top_p=0.01, seed=1).sampler()
    assert {alone(scores) for _ in range(50)} == {1}


def test_a_seed_repeats_what_is_drawn() -> None:
    scores = torch.zeros(1000)
    first, second, other = (Sampling(1.0, seed=seed).sampler() for seed in (1, 1, 2))
    one = [first(scores) for _ in range(10)]
    assert one == [second(scores) for _ in range(10)]
    assert one != [other(scores) for _ in range(10)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Sampling(**options)  # type: ignore[arg-type]
