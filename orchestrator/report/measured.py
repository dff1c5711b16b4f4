"""Putting measured times beside predicted ones: a report and a profile of the same program."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.report.data import (
    AtomReport,
    MethodReport,
    PlanReport,
    Report,
    ReportError,
    SegmentReport,
)
from orchestrator.report.etdump import Event, read_runs

_KERNEL_PREFIX = "native_call_"


def with_profile(report: Report, etdump: bytes, method: str = "") -> Report:
    """Return the report with the median times of a profile.

    etdump: a profile of runs of one method, from `NativeProgram(..., etdump=True).etdump()` or
        `orchestrator-run --etdump`.
    method: which one; "" for the only one, or "forward".

    Times of single ops come from delegates that log their nodes' names, as ggml does, and from
    kernels; where a segment is one atom, its time is the atom's.

    Raises:
        ReportError: not a profile, one without runs, one of another program, or no such method.
    """
    name = method or (report.methods[0].name if len(report.methods) == 1 else "forward")
    if name not in (each.name for each in report.methods):
        raise ReportError(f"the report has no method {name!r}")
    runs = [_Run(events) for events in read_runs(etdump)]
    if not runs:
        raise ReportError("the profile holds no run of a method")
    methods = tuple(_measured(each, runs) if each.name == name else each for each in report.methods)
    return replace(report, methods=methods)


class _Run:
    """One run's events, by what they are about."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.total_ns = next((e.duration_ns for e in events if e.name == "Method::execute"), 0)
        inside: dict[int, list[Event]] = defaultdict(list)
        kernels: dict[int, str] = {}
        # Delegate calls: their time and what the delegate logged. Kernels: name and time.
        self.calls: list[tuple[int, list[Event]]] = []
        self.kernels: list[tuple[str, int]] = []
        for event in events:
            if event.delegate_name:
                inside[event.instruction].append(event)
            elif event.name == "DELEGATE_CALL":
                self.calls.append((event.duration_ns, inside.pop(event.instruction, [])))
            elif event.name.startswith(_KERNEL_PREFIX):
                kernels[event.instruction] = event.name.removeprefix(_KERNEL_PREFIX)
            elif event.name == "OPERATOR_CALL":
                name = kernels.pop(event.instruction, "").split(".")[0]
                self.kernels.append((name, event.duration_ns))


def _measured(method: MethodReport, runs: Sequence[_Run]) -> MethodReport:
    for run in runs:
        run.calls = _without_branches(method, run)
        _check(method, run)
    segments = {
        segment: statistics.median(run.calls[place][0] for run in runs)
        for place, segment in enumerate(method.calls)
    }
    nodes = _medians(dict(_node_times(method, run)) for run in runs)
    atoms = tuple(_measured_atom(atom, nodes, segments, method) for atom in method.atoms)
    for atom in atoms:
        if not method.segments[atom.segment].is_delegate and atom.measured_ns is not None:
            segments[atom.segment] = segments.get(atom.segment, 0.0) + atom.measured_ns
    count = f"{len(runs)} profiled run" + "s" * (len(runs) > 1)
    return replace(
        method,
        segments=tuple(_timed(each, segments.get(i)) for i, each in enumerate(method.segments)),
        atoms=atoms,
        plan=replace(
            method.plan or PlanReport("unknown"),
            measured_ns=statistics.median(run.total_ns for run in runs),
        ),
        profile=f"median of {count}" if len(runs) > 1 else count,
    )


def _timed(segment: SegmentReport, measured_ns: float | None) -> SegmentReport:
    return replace(segment, measured_ns=measured_ns)


def _without_branches(method: MethodReport, run: _Run) -> list[tuple[int, list[Event]]]:
    """A run's delegate calls but for those in branches of control flow.

    Raises:
        ReportError: it cannot be told which branches were taken.
    """
    more = len(run.calls) - len(method.calls)
    taken = [
        numbers
        for numbers in itertools.product(*(branch.numbers for branch in method.branch_calls))
        if sum(numbers) == more
    ]
    if not taken:
        return run.calls
    if len(taken) > 1:
        raise ReportError(
            f"method {method.name!r} has branches with delegates, and the profile's "
            f"{len(run.calls)} delegate calls do not tell which ones were taken"
        )
    kept, start, end = [], 0, 0
    for branch, number in zip(method.branch_calls, taken[0], strict=True):
        kept += run.calls[start : branch.before + end]
        end += number
        start = branch.before + end
    return kept + run.calls[start:]


def _check(method: MethodReport, run: _Run) -> None:
    """Refuse a profile of another program."""
    if len(run.calls) != len(method.calls):
        raise ReportError(
            f"the profile is of another program: it has {len(run.calls)} delegate calls, method "
            f"{method.name!r} makes {len(method.calls)}"
        )
    owners = {node: i for i, each in enumerate(method.segments) for node in each.nodes}
    for (_, events), segment in zip(run.calls, method.calls, strict=True):
        for event in events:
            if owners.get(event.delegate_name, segment) != segment:
                raise ReportError(
                    f"the profile is of another program: it has {event.delegate_name!r} in the "
                    f"call of segment {segment}, method {method.name!r} in segment "
                    f"{owners[event.delegate_name]}"
                )


def _node_times(method: MethodReport, run: _Run) -> Iterator[tuple[str, float]]:
    for _, events in run.calls:
        for event in events:
            yield event.delegate_name, event.duration_ns
    waiting: dict[str, list[float]] = defaultdict(list)
    for name, duration in run.kernels:
        waiting[name].append(duration)
    expected: dict[str, list[str]] = defaultdict(list)
    for node, op in _kernel_nodes(method):
        expected[op].append(node)
    for op, names in expected.items():
        # A node without an event became a view, which costs nothing; if only some of an op's nodes
        # did, it is not known which.
        if len(waiting[op]) == len(names):
            yield from zip(names, waiting[op], strict=True)


def _kernel_nodes(method: MethodReport) -> Iterator[tuple[str, str]]:
    """Nodes that kernels run, in the program's order, with their ops' names."""
    ops = {
        node: op
        for atom in method.atoms
        if not method.segments[atom.segment].is_delegate
        for node, op in zip(atom.nodes, atom.ops, strict=True)
    }
    for node in method.kernel_order or ops:
        parts = ops.get(node, "").split(".")
        if len(parts) > 1:
            yield node, parts[1]


def _medians(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    times: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, duration in run.items():
            times[name].append(duration)
    return {name: statistics.median(values) for name, values in times.items()}


def _measured_atom(
    atom: AtomReport,
    nodes: Mapping[str, float],
    segments: Mapping[int, float],
    method: MethodReport,
) -> AtomReport:
    found = [nodes[node] for node in atom.nodes if node in nodes]
    segment = method.segments[atom.segment]
    if found:
        measured: float | None = sum(found)
    elif segment.is_delegate and len(segment.atoms) == 1:
        measured = segments.get(atom.segment)
    else:
        measured = None
    return replace(atom, measured_ns=measured)
