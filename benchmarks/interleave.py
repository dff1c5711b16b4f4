"""Timing several alternatives side by side, in turn, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Timing:
    """Times of one alternative, in milliseconds, one per round."""

    rounds_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median round."""
        return statistics.median(self.rounds_ms)

    @property
    def spread(self) -> float:
        """Half the interquartile range as a fraction of the median."""
        low, _, high = statistics.quantiles(self.rounds_ms, n=4)
        return (high - low) / 2 / self.median_ms


def interleave(alternatives: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Runs every alternative once per round, so that a change of the machine's speed meets all
    alike; in a new order each time, so that none always finds what the same other one left behind.

    Args:
        alternatives: functions that run once and return their time in milliseconds.
        rounds: how often each runs, at least 4; one more round warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    order = list(alternatives.items())
    random = Random(0)
    for number in range(rounds + 1):
        random.shuffle(order)
        for name, run in order:
            elapsed = run()
            if number > 0:
                times[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in times.items()}


def ratio(first: Timing, second: Timing) -> float:
    """The median over the rounds of first / second, which were run next to each other."""
    pairs = zip(first.rounds_ms, second.rounds_ms, strict=True)
    return statistics.median(a / b for a, b in pairs)
