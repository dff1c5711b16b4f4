"""Which cost model prices a program, by the options it is planned with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import Backend
from orchestrator.backends.candidates import Candidates
from orchestrator.cost.calibration import calibration_tasks, read_calibration
from orchestrator.cost.environment import Environment, Machine, host, versions_of
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.measure import INTERRUPTED, Outcome, Progress, ProgressCallback, measure
from orchestrator.cost.measured import MeasuredCosts
from orchestrator.cost.model import AnalyticCosts, CostModel, estimates_of
from orchestrator.cost.rates import SUFFIX, read_rates
from orchestrator.cost.table import CostTable, CostTableError, default_path
from orchestrator.options import HOST, PlanOptions, TuneEvent

_ESTIMATED = (
    "Costs are estimated from shapes; nothing was measured. They compare plans; real times may be "
    "a third or three times as long."
)


class TargetError(ValueError):
    """There are no costs of a device under the name and thread count asked for."""


@dataclass
class Costs:
    """A cost model, and what the reader of a report should know about it.

    interrupted: the user stopped measuring.
    """

    model: CostModel
    remarks: list[str] = field(default_factory=list)
    interrupted: bool = False

    def notes(self) -> list[str]:
        """Return the remarks once the model has priced a graph."""
        if not isinstance(self.model, MeasuredCosts):
            return [*self.remarks, _ESTIMATED]
        known, wanted = self.model.known, self.model.wanted
        return [*self.remarks, f"{known} of {wanted} prices of ops were measured."]


def find_costs(
    ep: ExportedProgram,
    candidates: Candidates,
    backends: Sequence[Backend],
    options: PlanOptions,
    only: Sequence[str] | None = None,
    known_ns: Mapping[Node, float] | None = None,
) -> Costs:
    """Return the model that the options ask for; measure what it lacks if they say so.

    only: names of the delegates that may be used; None for all. Others need not be measured.
    known_ns: of nodes whose time is known, see `analytic.estimate_ns`.

    Raises:
        CostTableError: the cost table that was asked for cannot be used.
        TargetError: there are no costs of the target.
    """
    if is_rates(options):
        return _by_rates(backends, options, known_ns or {})
    estimated = AnalyticCosts(estimates_of(backends), options.thread_count, known_ns or {})
    if options.tune == "off" and options.target == HOST:
        return Costs(estimated)
    remarks: list[str] = []
    try:
        table = open_table(options)
    except CostTableError as error:
        if options.tune == "measure" or options.cost_table is not None or options.target != HOST:
            raise
        table, remarks = None, [str(error)]
    if table is None:
        if options.target != HOST:
            raise _no_target(options, [])
        return Costs(estimated, remarks)
    environments = find_environments(table, options, backends)
    keys = AtomKeys(ep, candidates)
    interrupted = False
    if options.tune == "measure":
        usable = [backend for backend in backends if only is None or backend.name in only]
        outcome = _measure(keys, usable, table, options)
        interrupted = outcome.stopped == INTERRUPTED
        remarks += _remarks(outcome)
    delegates = {backend.name: environments[backend.name] for backend in backends}
    calibration = read_calibration(table, delegates)
    model = MeasuredCosts(keys, table, environments, calibration, estimated)
    return Costs(model, remarks, interrupted)


def is_rates(options: PlanOptions) -> bool:
    """Whether the options name a file of rates in place of a cost table."""
    return options.table_path is not None and options.table_path.suffix == SUFFIX


def _by_rates(
    backends: Sequence[Backend], options: PlanOptions, known_ns: Mapping[Node, float]
) -> Costs:
    assert options.table_path is not None
    rates = read_rates(options.table_path)
    if rates.target != options.target:
        raise TargetError(
            f"{options.table_path} has rates of target {rates.target!r}, and costs of target "
            f"{options.target!r} are asked for"
        )
    remarks = [
        f"Costs are estimated from shapes by rates of {rates.target!r}: {options.table_path.name}. "
        f"{rates.about}".strip()
    ]
    unknown = rates.unknown(backends)
    if unknown:
        names = ", ".join(unknown)
        remarks.append(f"It has no rates of {names}: those of the machine here were taken.")
    model = AnalyticCosts(rates.estimates(backends), options.thread_count, known_ns)
    return Costs(model, remarks)


def open_table(options: PlanOptions) -> CostTable | None:
    """Open the table that the options name; None if there is none and nothing will be written.

    Raises:
        CostTableError: the table that was asked for is not there, or cannot be used.
    """
    path = options.table_path or default_path()
    if options.tune != "measure" and not path.exists():
        if options.cost_table is not None:
            raise CostTableError(
                f"there is no cost table {path}; measure one with tune='measure', or leave "
                "cost_table out"
            )
        return None
    return CostTable(path)


def find_environments(
    table: CostTable, options: PlanOptions, backends: Sequence[Backend]
) -> dict[str, Environment]:
    """Return the environments whose costs the options ask for, by backend, kernels among them.

    Of another target, a backend's costs count whatever software they were measured with, that of
    the backend here first.

    Raises:
        TargetError: the table has none of that name, or none for that many threads.
    """
    versions = versions_of(backends)
    if options.target == HOST:
        machine = host(options.thread_count)
        return {name: machine.running(each) for name, each in versions.items()}
    machine = _target(table, options)
    found = {}
    for name, here in versions.items():
        known = [each for each in table.environments(name) if each.machine == machine]
        same = machine.running(here)
        found[name] = same if same in known or not known else known[-1]
    return found


def _target(table: CostTable, options: PlanOptions) -> Machine:
    known = table.environments()
    fitting = [
        each.machine
        for each in known
        if each.target == options.target and options.threads in (None, each.threads)
    ]
    if not fitting:
        raise _no_target(options, known)
    return fitting[-1]


def _no_target(options: PlanOptions, known: Sequence[Environment]) -> TargetError:
    names = sorted({f"{each.target} ({each.threads} threads)" for each in known})
    threads = "" if options.threads is None else f" for {options.threads} threads"
    return TargetError(
        f"there are no costs of target {options.target!r}{threads}; known: "
        f"{', '.join(names) or 'none'}. Import some with `orchestrator calibrate import`."
    )


def _measure(
    keys: AtomKeys, backends: Sequence[Backend], table: CostTable, options: PlanOptions
) -> Outcome:
    tasks = [*calibration_tasks(backends), *keys.tasks(backends, options.thread_count)]
    return measure(
        tasks,
        table,
        options.thread_count,
        budget_s=options.budget_s,
        progress=_teller(options.progress),
    )


def _remarks(outcome: Outcome) -> list[str]:
    remarks = []
    if outcome.stopped is not None:
        remarks.append(f"Measuring ops stopped early: {outcome.stopped}; the rest is estimated.")
    if outcome.failures:
        (label, backend), reason = next(iter(outcome.failures.items()))
        remarks.append(
            f"{len(outcome.failures)} measurements of ops failed, the first being {label} on "
            f"{backend}: {reason.splitlines()[0][:200]}"
        )
    return remarks


def _teller(progress: Callable[[TuneEvent], None] | None) -> ProgressCallback | None:
    if progress is None:
        return None
    tell = progress

    def forward(event: Progress) -> None:
        remaining = event.remaining_s if event.done else None
        tell(TuneEvent("timing ops", event.done, event.total, remaining))

    return forward
