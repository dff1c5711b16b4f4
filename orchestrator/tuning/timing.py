"""Timing programs against each other, and telling which is fastest."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch

from orchestrator.cost.measure import summarize, warm_up
from orchestrator.cost.table import Measurement
from orchestrator.native import NativeProgram
from orchestrator.planner import Plan
from orchestrator.planning.choice import Choice

# Runs of a program: within these numbers, after these.
_MIN_RUNS, _MAX_RUNS, _WARMUP = 7, 60, 2
# Plans this close are the same, and so are those whose difference over the repeats is within this
# many standard errors (95 % of Student's t distribution for four repeats), up to a limit; the one
# with fewer delegate calls is taken.
_TIE = 0.005
_STANDARD_ERRORS = 3.18
_MOST_TIE = 0.03


@dataclass
class LoweredPlan:
    """One plan for one method, lowered.

    choice: what makes this plan again. choices: all that come to it, the first one first.
    file: of the program.
    repeats_ns: times of runs in turn with the others. Each repeat loads all programs anew: where
        its memory happens to lie makes one load of a program faster than the next. Equally many
        for all that were timed together.
    """

    choice: Choice
    plan: Plan
    file: Path
    threads: int
    load_options: Mapping[str, Mapping[str, bool | int | str]]
    choices: list[Choice]
    repeats_ns: list[list[int]] = field(default_factory=list)

    @property
    def times_ns(self) -> list[int]:
        """Return the times of all repeats."""
        return [ns for repeat in self.repeats_ns for ns in repeat]

    def load(self) -> NativeProgram:
        """Map the file, as where it is deployed: weights are aligned there."""
        options = self.load_options
        return NativeProgram(self.file, num_threads=self.threads, backend_options=options)

    def measurement(self) -> Measurement:
        """Sum up the times of all repeats."""
        return summarize(self.times_ns)


def time_in_turn(
    method: str, plans: Sequence[LoweredPlan], inputs: Sequence[torch.Tensor], seconds: float
) -> list[list[int]]:
    """Load all programs and run each once per round, in a new order each time.

    Returns their times in ns, equally many, in the order of `plans`.
    """
    programs = {str(number): each.load() for number, each in enumerate(plans)}
    once = sum(each.time(method, inputs, runs=1, warmup=_WARMUP)[0] for each in programs.values())
    warm_up(lambda number: programs[number].time(method, inputs, runs=1, warmup=0), programs)
    rounds = int(min(max(seconds * 1e9 / max(once, 1), _MIN_RUNS), _MAX_RUNS))
    times: dict[str, list[int]] = {number: [] for number in programs}
    order = list(programs)
    random = Random(0)
    for _ in range(rounds):
        random.shuffle(order)  # none always finds the caches as the same other one left them
        for number in order:
            times[number] += programs[number].time(method, inputs, runs=1, warmup=0)
    return list(times.values())


def fastest(plans: Sequence[LoweredPlan]) -> LoweredPlan:
    """Return the plan with the fewest delegate calls of those that are as fast as any."""
    most = max(len(each.repeats_ns) for each in plans)
    close = [each for each in plans if len(each.repeats_ns) == most]
    repeats = _undisturbed(close)
    times_ns = [
        [statistics.median(each.repeats_ns[repeat]) for repeat in repeats] for each in close
    ]
    best = min(range(len(close)), key=lambda each: sum(times_ns[each]))
    near = [
        each
        for each in range(len(close))
        if each == best or _is_as_fast(times_ns[each], times_ns[best])
    ]
    first = min(near, key=lambda each: (len(close[each].plan.partitions), sum(times_ns[each])))
    return close[first]


def _undisturbed(plans: Sequence[LoweredPlan]) -> list[int]:
    """Return the half of the repeats in which the programs together were fastest.

    What else runs on the processor slows all down for seconds, and not all alike.
    """
    count = len(plans[0].repeats_ns)
    totals = [
        sum(statistics.median(each.repeats_ns[repeat]) for each in plans) for repeat in range(count)
    ]
    return sorted(range(count), key=totals.__getitem__)[: (count + 1) // 2]


def _is_as_fast(times_ns: Sequence[float], best_ns: Sequence[float]) -> bool:
    """Return whether times, by repeat, differ from the best ones by mere chance.

    Runs of one repeat have much in common, so that repeats are what counts.
    """
    ratios = [ns / best for ns, best in zip(times_ns, best_ns, strict=True)]
    tie = _MOST_TIE
    if len(ratios) > 1:
        error = statistics.stdev(ratios) / math.sqrt(len(ratios))
        tie = min(max(_TIE, _STANDARD_ERRORS * error), _MOST_TIE)
    return statistics.fmean(ratios) <= 1 + tie
