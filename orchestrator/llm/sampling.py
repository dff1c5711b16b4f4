"""How the next token is drawn from scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.options import OptionError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    temperature: what scores are divided by; 0 takes the best token always. top_p: the smallest set
    of best tokens whose probabilities add up to this is drawn from. seed: of the random numbers,
    None for others each time.

    Raises:
        OptionError: a value out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.temperature >= 0:
            raise OptionError(f"temperature is {self.temperature}; expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}; expected more than 0, and 1 at most")

    def sampler(self) -> Sampler:
        """Return what draws the tokens of one text."""
        return Sampler(self)


class Sampler:
    """Draws tokens, with random numbers of its own."""

    def __init__(self, how: Sampling) -> None:
        self._how = how
        self._random = torch.Generator()
        if how.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(how.seed)

    def __call__(self, scores: Tensor) -> int:
        """Draw from float32 [vocabulary]."""
        if self._how.temperature == 0:
            return int(scores.argmax())
        chances = torch.softmax(scores.double() / self._how.temperature, dim=-1)
        if self._how.top_p < 1:
            chances, order = chances.sort(descending=True)
            before = chances.cumsum(-1) - chances  # the best token always stays
            chances = chances.where(before < self._how.top_p, 0.0)
            return int(order[torch.multinomial(chances, 1, generator=self._random)])
        return int(torch.multinomial(chances, 1, generator=self._random))
