"""Whether two programs are the same, and which of two is faster where noise hides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from executorch.exir._serialize._program import deserialize_pte_binary

from benchmarks.interleave import Timing, ratio
from benchmarks.repeats import in_repeats
from orchestrator import LoweredProgram
from orchestrator.report.embed import KEY as REPORT_KEY

SURE, MOST_EXTRA, EXTRA_SECONDS = 0.005, 4, 15.0


def median_error(first: Timing, second: Timing) -> float:
    """The standard error of `ratio`, the median of ratios that are about normally distributed."""
    sigma = ratio_spread(first, second) / 0.6745
    return 1.2533 * sigma / math.sqrt(len(first.rounds_ms))


def ratio_spread(first: Timing, second: Timing) -> float:
    """Half the interquartile range of the ratios of runs next to each other."""
    pairs = zip(first.rounds_ms, second.rounds_ms, strict=True)
    low, _, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    return (high - low) / 2


def content(program: LoweredProgram) -> tuple[Any, ...]:
    """What two programs must have in common to be the same but for the report inside."""
    file = deserialize_pte_binary(program.buffer)
    named = file.named_data
    assert named is not None
    data = {key: named.buffers[entry.buffer_index] for key, entry in named.pte_data.items()}
    del data[REPORT_KEY]
    return file.program, data, file.mutable_data


def first_alike(programs: Mapping[str, LoweredProgram]) -> dict[str, str]:
    """By label, that of the first program which is the same but for the report inside."""
    contents: dict[str, tuple[Any, ...]] = {}
    alike = {}
    for label, program in programs.items():
        mine = content(program)
        alike[label] = next((each for each, its in contents.items() if its == mine), label)
        contents.setdefault(alike[label], mine)
    return alike


def told_apart(
    buffers: Mapping[str, bytes],
    known: tuple[Timing, Timing],
    inputs: Sequence[Any],
    threads: int,
    limit: float,
) -> tuple[Timing, Timing]:
    """The times of two programs, for longer if those that are known do not tell them apart.

    They do once the standard error of their ratio is below SURE, or a third of what the ratio is
    from the limit: how often they are timed depends on how noisy the times are, not on which is the
    faster one.
    """
    for _ in range(MOST_EXTRA):
        error = median_error(*known)
        if error < SURE or abs(ratio(*known) - limit) > 3 * error:
            break
        more = in_repeats(buffers, inputs, threads, EXTRA_SECONDS).values()
        first, second = (
            Timing(each.rounds_ms + new.rounds_ms) for each, new in zip(known, more, strict=True)
        )
        known = first, second
    return known
