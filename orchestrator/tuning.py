"""Closing the loop: times of ops do not add up exactly, so the best few plans are timed whole.

The cheapest plans by the cost model, every backend alone and every greedy plan are lowered and
timed in turn; the fastest is kept, and remembered in the cost table, so that lowering the same
model again with tune="cached" takes it at once. A program is therefore never slower than the best
single backend, as far as this machine can tell.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram

from ggml_delegate.native import NativeProgram
from orchestrator.backends import Backend
from orchestrator.cost.calibration import put_program_factor, read_calibration
from orchestrator.cost.environment import Environment, host
from orchestrator.cost.measure import settle, summarize
from orchestrator.cost.plans import program_digest, recall_choice, remember_choice
from orchestrator.cost.source import open_table
from orchestrator.cost.table import CostTable, CostTableError, Measurement
from orchestrator.examples import example_leaves
from orchestrator.options import HOST, OptionError, PlanOptions, TuneEvent
from orchestrator.planner import Plan, PlannerError
from orchestrator.planning import Choice, Planned
from orchestrator.program import LoweredProgram
from orchestrator.report.data import AlternativeReport
from orchestrator.timed import Timed
from orchestrator.variants import corrected, with_dearer_calls, without_ties
from orchestrator.whole import Whole, fit

Measured = Mapping[str, Timed]

ALONE = " alone"

# Whole runs: for this long in all, within these numbers per plan.
_TIMING_S = 4.0
_MIN_RUNS, _MAX_RUNS, _WARMUP = 7, 60, 2
# Plans this close to the fastest are timed again, for this long in all, loaded anew each time:
# where its memory happens to lie makes one load of a program faster than the next. What else runs
# on the processor slows all down for seconds, and not all alike: of these heats, the faster half
# counts.
_CLOSE = 0.06
_HEATS = 8
_RUN_OFF_S = 8.0
# Plans this close are the same, and so are those whose difference over the heats is within this
# many standard errors (95 % of Student's t distribution for four heats), up to a limit; the one
# with fewer delegate calls is taken.
_TIE = 0.005
_STANDARD_ERRORS = 3.18
_MOST_TIE = 0.03
# Composite ops that are looked at, and what decomposing one has to gain, as a part of the whole.
_MOST_COMPOSITES = 8
_GAIN = 0.01


@dataclass(frozen=True)
class Made:
    """A lowered program with the planning behind each of its methods.

    manager: ExecuTorch's own result, an ExecutorchProgramManager.
    """

    program: LoweredProgram
    planned: Mapping[str, Planned]
    manager: Any


class Maker(Protocol):
    """Lowers the same programs again and again."""

    def make(
        self,
        choices: Mapping[str, Choice],
        measured: Measured,
        shown: Mapping[str, Whole] | None = None,
    ) -> Made:
        """Lower, given what was decided about each method, and the times for the report.

        shown: by method, what the timed programs have shown, for the report's advice.
        """

    def plan(self, choices: Mapping[str, Choice]) -> Mapping[str, Planned]:
        """Plan only."""


def make_tuned(
    programs: Mapping[str, ExportedProgram],
    backends: Sequence[Backend],
    options: PlanOptions,
    maker: Maker,
) -> Made:
    """Lower with the plan that is known to be fastest, or find it out if the options say so.

    programs: by method name.
    """
    if options.strategy == "greedy" or options.tune == "off" or not backends:
        return maker.make({}, {})
    choices, measured = _recalled(programs, backends, options)
    if options.tune == "measure" and not choices.keys() >= programs.keys():
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            return _Tuning(programs, backends, options, maker, Path(folder)).run()
    return maker.make(choices, measured)


def _recalled(
    programs: Mapping[str, ExportedProgram], backends: Sequence[Backend], options: PlanOptions
) -> tuple[dict[str, Choice], dict[str, Timed]]:
    """What earlier tuning on this machine found for these very programs."""
    choices: dict[str, Choice] = {}
    measured: dict[str, Timed] = {}
    try:
        table = open_table(options) if options.target == HOST else None
    except CostTableError:  # reported where costs are looked up
        table = None
    if table is None:
        return choices, measured
    environment = host(options.thread_count)
    for name, program in programs.items():
        digest = program_digest(program, [backend.name for backend in backends], options)
        recalled = recall_choice(table, environment, digest)
        if recalled is not None:
            choices[name], measured[name] = recalled
    return choices, measured


@dataclass
class _Candidate:
    """One plan for one method, lowered.

    choice: how it was first come to. names: of all choices that come to it. file: of the program.
    heats_ns: times of runs in turn with the others, by heat; equally many for all that were timed
        together.
    """

    choice: Choice
    plan: Plan
    file: Path
    threads: int
    names: list[str]
    heats_ns: list[list[int]] = field(default_factory=list)

    @property
    def times_ns(self) -> list[int]:
        """Of all heats."""
        return [ns for heat in self.heats_ns for ns in heat]

    def load(self) -> NativeProgram:
        """Map the file, as where it is deployed: weights are aligned there."""
        return NativeProgram(self.file, num_threads=self.threads)

    def measurement(self) -> Measurement:
        return summarize(self.times_ns)


class _Tuning:
    def __init__(
        self,
        programs: Mapping[str, ExportedProgram],
        backends: Sequence[Backend],
        options: PlanOptions,
        maker: Maker,
        folder: Path,
    ) -> None:
        self._programs = programs
        self._folder = folder
        self._names = [backend.name for backend in backends]
        self._options = options
        self._maker = maker
        self._start = time.monotonic()
        self._candidates: dict[str, list[_Candidate]] = {name: [] for name in programs}
        self._lowered = 0
        self._to_lower = 0

    def run(self) -> Made:
        first = self._maker.make({}, {})
        if any(each.interrupted for each in first.planned.values()):
            return first
        self._add({name: Choice() for name in self._programs}, first)
        rounds = list(self._choices(first.planned))
        self._to_lower = len(rounds) + 3
        self._tell()
        interrupted = False
        try:
            for choices in rounds:
                self._lower(choices)
            self._lower(self._decomposed(first.planned))
            self._time()
            self._lower(self._corrected(first.planned))
            self._time()
            self._run_off()
        except KeyboardInterrupt:
            interrupted = True
        if interrupted and not all(map(self._is_timed, self._programs)):
            return first
        return self._keep_fastest()

    def _is_timed(self, name: str) -> bool:
        return any(candidate.times_ns for candidate in self._candidates[name])

    def _choices(self, planned: Mapping[str, Planned]) -> Iterator[dict[str, Choice]]:
        """Yield what to try, for all methods at once."""
        for name in self._names:
            alone = Choice(f"{name}{ALONE}", only=(name,), order=(name,))
            yield dict.fromkeys(self._programs, alone)
        if len(self._names) > 1:
            for name in self._names:
                order = (name, *(other for other in self._names if other != name))
                greedy = Choice(f"greedy: {', '.join(order)}", order=order)
                yield dict.fromkeys(self._programs, greedy)
        for variant in (with_dearer_calls, without_ties):
            choices = {name: variant(each) for name, each in planned.items()}
            yield {name: choice for name, choice in choices.items() if choice is not None}

    def _decomposed(self, planned: Mapping[str, Planned]) -> dict[str, Choice]:
        """The best plans with composite ops decomposed where that is predicted to pay.

        One op after the other, those on the same sizes together, each given what was found for
        those before: not every combination is looked at.
        """
        accepted: dict[str, frozenset[str]] = {name: frozenset() for name in planned}
        for name, each in planned.items():
            best_ns = each.plan.total_ns
            for composite, wanted_by in list(each.composites.items())[:_MOST_COMPOSITES]:
                if wanted_by.issuperset(self._names) or self._is_over():
                    continue
                trial = accepted[name] | {composite}
                found = self._maker.plan({name: Choice(decomposed=trial)})[name]
                if found.plan.total_ns < (1 - _GAIN) * best_ns:
                    accepted[name], best_ns = trial, found.plan.total_ns
        return {
            name: Choice("decomposed", decomposed=composites)
            for name, composites in accepted.items()
            if composites
        }

    def _is_over(self) -> bool:
        budget = self._options.budget_s
        return budget is not None and time.monotonic() - self._start > budget

    def _corrected(self, planned: Mapping[str, Planned]) -> dict[str, Choice]:
        """The best plans if ops and calls take in any program what they took in those timed."""
        choices = {}
        for name, each in planned.items():
            choice = corrected(each, self._whole(name))
            if choice is not None:
                choices[name] = choice
        return choices

    def _whole(self, name: str) -> Whole:
        """What the timed programs took over their predictions."""
        timed = [each for each in self._candidates[name] if each.times_ns]
        return fit(((each.plan, each.measurement().median_ns) for each in timed), self._names)

    def _lower(self, choices: Mapping[str, Choice]) -> None:
        """Lower once more, unless the budget is used up or nothing new would come of it."""
        self._lowered += 1
        self._tell()
        if self._is_over():
            return
        new = {}
        for name, choice in choices.items():
            same = None
            if choice.assignment is not None:
                same = self._with_assignment(name, choice.assignment)
            if same is None:
                new[name] = choice
            else:
                same.names.append(choice.name)
        if not new:
            return
        try:
            self._add(new, self._maker.make(new, {}))
        except (PlannerError, OptionError):
            return  # pins or limits leave no such plan

    def _with_assignment(self, name: str, assignment: Mapping[str, str]) -> _Candidate | None:
        """The candidate that has these atoms on these backends."""
        same = (each for each in self._candidates[name] if each.plan.assignment == assignment)
        return next(same, None)

    def _add(self, choices: Mapping[str, Choice], made: Made) -> None:
        file = self._folder / f"{self._lowered}.pte"
        file.write_bytes(made.program.buffer)
        for name, choice in choices.items():
            plan = made.planned[name].plan
            same = self._with_assignment(name, plan.assignment)
            if same is not None:
                same.names.append(choice.name)
                continue
            if choice.only is None:
                choice = replace(choice, order=None, assignment=dict(plan.assignment))
            threads = self._options.thread_count
            self._candidates[name].append(_Candidate(choice, plan, file, threads, [choice.name]))

    def _time(self) -> None:
        for name, candidates in self._candidates.items():
            if all(each.times_ns for each in candidates):
                continue
            times = _time_in_turn(name, candidates, self._inputs(name), _TIMING_S)
            for each, found in zip(candidates, times, strict=True):
                each.heats_ns = [found]

    def _run_off(self) -> None:
        """Time those that are close to the fastest again, so that chance does not decide."""
        for name, candidates in self._candidates.items():
            limit = (1 + _CLOSE) * min(each.measurement().median_ns for each in candidates)
            close = [each for each in candidates if each.measurement().median_ns <= limit]
            if len(close) == 1 or self._is_over():
                continue
            heats = [
                _time_in_turn(name, close, self._inputs(name), _RUN_OFF_S / _HEATS)
                for _ in range(_HEATS)
            ]
            for each, found in zip(close, zip(*heats, strict=True), strict=True):
                each.heats_ns = list(found)

    def _inputs(self, name: str) -> Sequence[torch.Tensor]:
        return example_leaves(self._programs[name])

    def _keep_fastest(self) -> Made:
        table = CostTable(self._options.table_path)
        environment = host(self._options.thread_count)
        choices: dict[str, Choice] = {}
        measured: dict[str, Timed] = {}
        for name, program in self._programs.items():
            timed = [each for each in self._candidates[name] if each.times_ns]
            best = _fastest(timed) if timed else self._candidates[name][0]
            choices[name] = best.choice
            if timed:
                measured[name] = Timed(
                    best.choice.name,
                    best.measurement().median_ns,
                    tuple(
                        _described(each, alias)
                        for each in timed
                        for alias in each.names
                        if each is not best or alias != best.choice.name
                    ),
                )
            if timed and not self._is_over():
                digest = program_digest(program, self._names, self._options)
                remember_choice(table, environment, digest, best.choice, measured[name])
        self._lowered = self._to_lower
        self._tell()
        made = self._maker.make(choices, measured, {name: self._whole(name) for name in measured})
        # Afterwards, so that no prediction in the report rests on the very times it stands beside.
        self._learn(table, environment)
        return made

    def _learn(self, table: CostTable, environment: Environment) -> None:
        """Remember what whole programs took over their predictions, for later predictions."""
        known = read_calibration(table, environment, self._names)
        for name, program in self._programs.items():
            digest = program_digest(program, self._names, self._options)
            found = self._whole(name)
            for backend, factor in found.factors.items():
                put_program_factor(
                    table,
                    environment,
                    backend,
                    digest,
                    factor * known.program_factor.get(backend, 1.0),
                    found.call_ns + known.program_call_ns.get(backend, 0.0),
                )

    def _tell(self) -> None:
        progress = self._options.progress
        if progress is not None:
            progress(TuneEvent("timing plans", self._lowered, self._to_lower))


def _time_in_turn(
    method: str,
    candidates: Sequence[_Candidate],
    inputs: Sequence[torch.Tensor],
    seconds: float,
) -> list[list[int]]:
    """Load all candidates and run each once per round, in a new order each time.

    Returns their times in ns, equally many, in the candidates' order.
    """
    programs = {str(number): each.load() for number, each in enumerate(candidates)}
    once = sum(each.time(method, inputs, runs=1, warmup=_WARMUP)[0] for each in programs.values())
    settle(lambda number: programs[number].time(method, inputs, runs=1, warmup=0), programs)
    rounds = int(min(max(seconds * 1e9 / max(once, 1), _MIN_RUNS), _MAX_RUNS))
    times: dict[str, list[int]] = {number: [] for number in programs}
    order = list(programs)
    random = Random(0)
    for _ in range(rounds):
        random.shuffle(order)  # none always finds the caches as the same other one left them
        for number in order:
            times[number] += programs[number].time(method, inputs, runs=1, warmup=0)
    return list(times.values())


def _fastest(candidates: Sequence[_Candidate]) -> _Candidate:
    """Return the candidate with the fewest delegate calls of those that are as fast as any."""
    most = max(len(each.heats_ns) for each in candidates)
    close = [each for each in candidates if len(each.heats_ns) == most]
    heats = _undisturbed(close)
    times_ns = [[statistics.median(each.heats_ns[heat]) for heat in heats] for each in close]
    best = min(range(len(close)), key=lambda each: sum(times_ns[each]))
    near = [
        each
        for each in range(len(close))
        if each == best or _is_as_fast(times_ns[each], times_ns[best])
    ]
    first = min(near, key=lambda each: (len(close[each].plan.partitions), sum(times_ns[each])))
    return close[first]


def _undisturbed(candidates: Sequence[_Candidate]) -> list[int]:
    """Return the half of the heats in which the candidates together were fastest."""
    count = len(candidates[0].heats_ns)
    totals = [
        sum(statistics.median(each.heats_ns[heat]) for each in candidates) for heat in range(count)
    ]
    return sorted(range(count), key=totals.__getitem__)[: (count + 1) // 2]


def _is_as_fast(times_ns: Sequence[float], best_ns: Sequence[float]) -> bool:
    """Whether times by heat differ from those of the best, run next to them, by mere chance.

    Runs of one heat have much in common, so that heats are what counts.
    """
    ratios = [ns / best for ns, best in zip(times_ns, best_ns, strict=True)]
    tie = _MOST_TIE
    if len(ratios) > 1:
        error = statistics.stdev(ratios) / math.sqrt(len(ratios))
        tie = min(max(_TIE, _STANDARD_ERRORS * error), _MOST_TIE)
    return statistics.fmean(ratios) <= 1 + tie


def _described(candidate: _Candidate, name: str) -> AlternativeReport:
    kinds = {"greedy": "greedy" in name, "single": name.endswith(ALONE)}
    return AlternativeReport(
        name=name,
        kind=next((kind for kind, found in kinds.items() if found), "cost"),
        partitions=len(candidate.plan.partitions),
        predicted_ns=candidate.plan.total_ns,
        measured_ns=candidate.measurement().median_ns,
    )
