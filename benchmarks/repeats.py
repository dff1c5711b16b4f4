"""Timing programs in several repeats, each of which loads all of them anew.

Where its memory happens to lie makes one load of a program some percent faster than the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.interleave import Timing, interleave
from benchmarks.running import Timed, native
from orchestrator.cost.measure import warm_up

REPEATS = 5
# Rounds per repeat.
_LEAST, _MOST = 5, 200


def in_repeats(
    buffers: Mapping[str, bytes],
    inputs: Sequence[Any],
    threads: int,
    seconds: float,
    beside: Mapping[str, Timed] | None = None,
) -> dict[str, Timing]:
    """Times the method "forward" of all programs in turn.

    Args:
        buffers: contents of .pte files, by label.
        seconds: about how long the runs take in all.
        beside: what else to time in each round, as it is, by other labels.
    """
    others = dict(beside or {})
    rounds: dict[str, tuple[float, ...]] = dict.fromkeys([*buffers, *others], ())
    for _ in range(REPEATS):
        runs = {label: native(buffer, inputs, threads) for label, buffer in buffers.items()}
        runs |= others
        warm_up(lambda label: runs[label](), runs)  # noqa: B023 - called at once
        once_s = sum(run() + run() for run in runs.values()) / 2e3
        timings = interleave(runs, int(min(max(seconds / REPEATS / once_s, _LEAST), _MOST)))
        for label, timing in timings.items():
            rounds[label] += timing.rounds_ms
    return {label: Timing(found) for label, found in rounds.items()}
