"""Which plans to time, and what is learnt from their times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.cost.calibration import read_calibration
from orchestrator.cost.environment import host, versions_for_plans, versions_of
from orchestrator.cost.table import CostTable, ProgramFactor
from orchestrator.dim_orders.as_given import AS_GIVEN, order_matters
from orchestrator.frontend.example_inputs import example_leaves
from orchestrator.options import OptionError, PlanOptions, TuneEvent
from orchestrator.planner import Plan, PlannerError
from orchestrator.planning.choice import Choice
from orchestrator.planning.make_plan import Planned
from orchestrator.report.data import AlternativeReport
from orchestrator.tuning.other_costs import corrected, with_dearer_calls, without_ties
from orchestrator.tuning.program_factors import ProgramFactors, fit
from orchestrator.tuning.remembered import program_digest, remember_choice
from orchestrator.tuning.timed_plans import TimedPlans
from orchestrator.tuning.timing import LoweredPlan, fastest, time_in_turn
from orchestrator.tuning.tune import Made, Maker
from orchestrator.tuning.unproven import Unproven

# All plans together are timed for this long.
_TIMING_S = 4.0
# Plans this close to the fastest are timed again, for this long in all, in so many repeats.
_CLOSE = 0.06
_REPEATS = 8
_RUN_OFF_S = 8.0
# Composite ops that are looked at, and what decomposing one has to gain, as a part of the whole.
_MOST_COMPOSITES = 8
_GAIN = 0.01


class Search:
    """Finds the fastest plan of each method by lowering and timing the promising ones."""

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
        self._backends = backends
        self._names = [backend.name for backend in backends]
        self._options = options
        self._maker = maker
        self._start = time.monotonic()
        self._plans: dict[str, list[LoweredPlan]] = {name: [] for name in programs}
        self._problems: dict[str, list[str]] = {name: [] for name in programs}
        self._unproven: dict[str, Unproven] = {}
        self._lowered = 0
        self._to_lower = 0

    def run(self) -> Made:
        """Lower with the fastest plan of those that were timed, and remember it."""
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
        return any(each.times_ns for each in self._plans[name])

    def _choices(self, planned: Mapping[str, Planned]) -> Iterator[dict[str, Choice]]:
        """Yield what to try, for all methods at once."""
        for name in self._names:
            yield dict.fromkeys(self._programs, Choice.of_one(name))
        if len(self._names) > 1:
            for name in self._names:
                order = (name, *(other for other in self._names if other != name))
                yield dict.fromkeys(self._programs, Choice.greedy(order))
        if order_matters(self._backends):
            yield dict.fromkeys(self._programs, AS_GIVEN)
        for variant in (with_dearer_calls, without_ties):
            choices = {name: variant(each) for name, each in planned.items()}
            yield {name: choice for name, choice in choices.items() if choice is not None}

    def _decomposed(self, planned: Mapping[str, Planned]) -> dict[str, Choice]:
        """Return the best plans with composite ops decomposed where that is predicted to pay.

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
        """Return the best plans if ops and calls take what they took in the timed programs."""
        choices = {}
        for name, each in planned.items():
            choice = corrected(each, self._factors(name))
            if choice is not None:
                choices[name] = choice
        return choices

    def _factors(self, name: str) -> ProgramFactors:
        """Return what the timed programs took over their predictions."""
        timed = [each for each in self._plans[name] if each.times_ns]
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
                same.choices.append(choice)
        if not new:
            return
        try:
            self._add(new, self._maker.make(new, {}))
        except (PlannerError, OptionError):
            return  # pins or limits leave no such plan

    def _with_assignment(self, name: str, assignment: Mapping[str, str]) -> LoweredPlan | None:
        """Return the plan that has these atoms on these backends."""
        same = (each for each in self._plans[name] if each.plan.assignment == assignment)
        return next(same, None)

    def _add(self, choices: Mapping[str, Choice], made: Made) -> None:
        file = self._folder / f"{self._lowered}.pte"
        file.write_bytes(made.program.buffer)
        for name, choice in choices.items():
            plan = made.planned[name].plan
            same = self._with_assignment(name, plan.assignment)
            if same is not None:
                same.choices.append(choice)
                continue
            problem = self._problem(name, file, plan)
            if problem is not None:
                self._problems[name].append(f"{choice.name} was left out: {problem}.")
                continue
            remembered = choice
            if choice.only is None:
                remembered = replace(choice, order=None, assignment=dict(plan.assignment))
            threads = self._options.thread_count
            options = made.program.load_options
            lowered = LoweredPlan(remembered, plan, file, threads, options, [choice])
            self._plans[name].append(lowered)

    def _problem(self, name: str, file: Path, plan: Plan) -> str | None:
        """Return why a program may not be timed in this process, or may not win; None if it may."""
        delegates = {segment.backend for segment in plan.partitions}
        used = [each for each in self._backends if each.name in delegates]
        if all(each.is_proven for each in used):
            return None
        if name not in self._unproven:
            inputs, tolerance = self._inputs(name), self._options.tolerance
            self._unproven[name] = Unproven(self._programs[name], inputs, tolerance)
        return self._unproven[name].problem(name, file, used, self._options.thread_count)

    def _time(self) -> None:
        for name, plans in self._plans.items():
            if all(each.times_ns for each in plans):  # none are left, if none may be timed
                continue
            times = time_in_turn(name, plans, self._inputs(name), _TIMING_S)
            for each, found in zip(plans, times, strict=True):
                each.repeats_ns = [found]

    def _run_off(self) -> None:
        """Time those that are close to the fastest again, so that chance does not decide."""
        for name, plans in self._plans.items():
            if not plans:
                continue
            limit = (1 + _CLOSE) * min(each.measurement().median_ns for each in plans)
            close = [each for each in plans if each.measurement().median_ns <= limit]
            if len(close) == 1 or self._is_over():
                continue
            repeats = [
                time_in_turn(name, close, self._inputs(name), _RUN_OFF_S / _REPEATS)
                for _ in range(_REPEATS)
            ]
            for each, found in zip(close, zip(*repeats, strict=True), strict=True):
                each.repeats_ns = list(found)

    def _inputs(self, name: str) -> Sequence[torch.Tensor]:
        return example_leaves(self._programs[name])

    def _keep_fastest(self) -> Made:
        table = CostTable(self._options.table_path)
        machine = host(self._options.thread_count)
        environment = machine.running(versions_for_plans(self._backends))
        choices: dict[str, Choice] = {}
        timed_plans: dict[str, TimedPlans] = {}
        for name, program in self._programs.items():
            timed = [each for each in self._plans[name] if each.times_ns]
            if not self._plans[name]:  # kernels can be trusted
                choices[name] = Choice("no delegate", only=())
                continue
            best = fastest(timed) if timed else self._plans[name][0]
            choices[name] = best.choice
            if timed:
                timed_plans[name] = TimedPlans(
                    best.choice.name,
                    best.measurement().median_ns,
                    tuple(
                        _described(each, choice)
                        for each in timed
                        for choice in each.choices
                        if choice != best.choice
                    ),
                    tuple(self._problems[name]),
                )
            if timed and not self._is_over():
                digest = program_digest(program, self._names, self._options)
                remember_choice(table, environment, digest, best.choice, timed_plans[name])
        self._lowered = self._to_lower
        self._tell()
        shown = {name: self._factors(name) for name in timed_plans}
        made = self._maker.make(choices, timed_plans, shown)
        # Afterwards, so that no prediction in the report rests on the very times it stands beside.
        self._learn(table)
        return made

    def _learn(self, table: CostTable) -> None:
        """Remember what whole programs took over their predictions, for later predictions."""
        machine = host(self._options.thread_count)
        versions = versions_of(self._backends)
        environments = {name: machine.running(versions[name]) for name in self._names}
        known = read_calibration(table, environments)
        for name, program in self._programs.items():
            digest = program_digest(program, self._names, self._options)
            found = self._factors(name)
            for backend, factor in found.by_delegate.items():
                learnt = ProgramFactor(
                    factor * known.program_factor.get(backend, 1.0),
                    found.call_ns.get(backend, 0.0) + known.program_call_ns.get(backend, 0.0),
                )
                table.put_factor(environments[backend], backend, digest, learnt)

    def _tell(self) -> None:
        progress = self._options.progress
        if progress is not None:
            progress(TuneEvent("timing plans", self._lowered, self._to_lower))


def _described(plan: LoweredPlan, choice: Choice) -> AlternativeReport:
    return AlternativeReport(
        name=choice.name,
        kind=choice.kind,
        partitions=len(plan.plan.partitions),
        predicted_ns=plan.plan.total_ns,
        measured_ns=plan.measurement().median_ns,
        backends=choice.order or (),
    )
