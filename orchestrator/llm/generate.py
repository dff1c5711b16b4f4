"""Generating text with a lowered decoder: the prompt in chunks, then token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from orchestrator.llm.sampling import Sampler, Sampling
from orchestrator.llm.stopping import StopAt
from orchestrator.llm.tokenizer import Tokenizer
from orchestrator.options import OptionError

Ending = Literal["end", "stop", "length", "context", "interrupted"]


class Decode(Protocol):
    """Runs tokens at their positions; returns the scores of the next, float32 [vocabulary]."""

    def __call__(self, tokens: Sequence[int], first: int) -> Tensor:
        """`first` is the position of the first token."""


@dataclass(frozen=True)
class Generation:
    """What was generated.

    text: without control tokens, and without what it stopped at. tokens: their ids, without the one
    that ended the text. prompt_tokens: how many the prompt had. held_tokens: how many of these the
    caches held already. prompt_s, decode_s: seconds that
    the prompt and the tokens after the first took. ending: "end" if the model ended the text,
    "stop" at a stop text, "length" after as many tokens as were asked for, "context" where the
    caches are full, "interrupted" by Ctrl-C.
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    prompt_s: float
    decode_s: float
    ending: Ending
    held_tokens: int = 0

    @property
    def prompt_tokens_per_s(self) -> float:
        """Tokens of the prompt in a second, without those that the caches held."""
        return (self.prompt_tokens - self.held_tokens) / self.prompt_s if self.prompt_s > 0 else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens in a second, after the first; 0 if there was none."""
        return self._decoded / self.decode_s if self.decode_s > 0 else 0.0

    @property
    def _decoded(self) -> int:
        return max(0, len(self.tokens) - 1 + (self.ending == "end"))


class GenerationInterrupted(KeyboardInterrupt):
    """Ctrl-C while a text grew.

    generation: what was generated until then.
    """

    def __init__(self, generation: Generation) -> None:
        super().__init__("generating was interrupted")
        self.generation = generation


def generate(
    decode: Decode,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    *,
    context: int,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    stream: Callable[[str], None] | None = None,
    held: Sequence[int] = (),
) -> Generation:
    """Continue a prompt, from the first position of the caches.

    held: the tokens that the caches hold from there on; what the prompt has in common with them is
        not run again.

    Raises:
        OptionError: the prompt is empty or longer than the context, or a stop text is empty.
        GenerationInterrupted: Ctrl-C, after the first token.
    """
    if not prompt:
        raise OptionError("the prompt has no tokens; expected one or more")
    if len(prompt) > context:
        raise OptionError(
            f"the prompt has {len(prompt)} tokens, and the context holds {context}; shorten it, or "
            "lower the model with a larger context"
        )
    if max_new_tokens < 1:
        raise OptionError(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
    text = StopAt(stop, stream)
    run = _Run(decode, sampling.sampler(), tokenizer, text)
    start = time.perf_counter()
    # The last token is run in any case, for the scores of the next.
    common = _common(prompt[:-1], held)
    token = run.draw(prompt[common:], common)
    prompted = time.perf_counter()
    interrupt: KeyboardInterrupt | None = None
    try:
        ending = run.on(token, len(prompt), context, max_new_tokens)
    except KeyboardInterrupt as error:
        ending, interrupt = "interrupted", error
    text.finish()
    found = Generation(
        text=text.shown,
        tokens=tuple(run.tokens),
        prompt_tokens=len(prompt),
        prompt_s=prompted - start,
        decode_s=time.perf_counter() - prompted,
        ending=ending,
        held_tokens=common,
    )
    if interrupt is not None:
        raise GenerationInterrupted(found) from interrupt
    return found


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    differs = (index for index, (one, other) in pairs if one != other)
    return next(differs, min(len(first), len(second)))


class _Run:
    """One text as it grows."""

    def __init__(
        self, decode: Decode, sampler: Sampler, tokenizer: Tokenizer, text: StopAt
    ) -> None:
        self._decode, self._sampler, self._text = decode, sampler, text
        self._ends = frozenset(tokenizer.ends)
        self._complete = tokenizer.decoder()
        self.tokens: list[int] = []

    def draw(self, tokens: Sequence[int], first: int) -> int:
        return self._sampler(self._decode(tokens, first))

    def on(self, token: int, position: int, context: int, most: int) -> Ending:
        """Go on from a token at a position until something ends the text."""
        while True:
            if token in self._ends:
                return "end"
            self.tokens.append(token)
            if self._text.add(self._complete(token)):
                return "stop"
            if len(self.tokens) == most:
                return "length"
            if position == context:
                return "context"
            token = self.draw([token], position)
            position += 1


def in_chunks(
    prefill: Callable[[Tensor, Tensor], Tensor],
    step: Callable[[Tensor, Tensor], Tensor],
    chunk: int,
) -> Decode:
    """Return what runs any number of tokens: several by `prefill`, a single one by `step`.

    prefill, step: int64 [1, tokens] and int64 [tokens] to float32 [1, vocabulary]. chunk: the most
    tokens that `prefill` takes.
    """

    def decode(tokens: Sequence[int], first: int) -> Tensor:
        scores = None
        for start in range(0, len(tokens), chunk):
            part = tokens[start : start + chunk]
            positions = torch.arange(first + start, first + start + len(part))
            method = step if len(part) == 1 else prefill
            scores = method(torch.tensor([list(part)]), positions)
        assert scores is not None
        return scores[0]

    return decode
