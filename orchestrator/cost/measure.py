"""Times atoms through the native runtime.

The atoms of a batch are timed in turn, one run each per round, as the ops of a program run in turn:
what one of them finds in the caches is what the others left there, and a change of the machine's
speed meets all alike. Each runs on memory that is in the caches, as an op inside a program finds
what the op before it has written. What is around an op (running a method, calling a delegate) is
timed beside it and taken off.

A batch takes a fraction of a second, and shared machines change their speed by a third from one
second to the next. So a reference product is timed in turn with every batch, and its times are kept
as they would be at one speed: where the product takes what it took when this machine was first
measured.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from orchestrator.backends import load_options
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.calibration import BASELINE, REFERENCE, baseline_task, reference_task
from orchestrator.cost.compile import Request, compile_what_can_be
from orchestrator.cost.environment import Environment, host, versions_of
from orchestrator.cost.extract import AtomProgram, NotMeasurableError
from orchestrator.cost.table import CostTable, Measurement
from orchestrator.cost.task import Place, Task
from orchestrator.cost.trial import try_out
from orchestrator.native import NativeProgram

INTERRUPTED = "interrupted"
# Per atom: enough runs for a stable median, little enough that a model takes seconds.
_MIN_RUNS = 5
_MAX_RUNS = 40
_TARGET_NS = 12e6
_WARMUP = 2
_WARM_UP_S = 0.2
_BATCH = 24
# Weights of a batch, which lie in memory several times while it is compiled.
_BATCH_BYTES = 128 << 20
BESIDE = {BASELINE, REFERENCE}
"""Keys of what is timed beside the atoms of every batch."""


@dataclass(frozen=True)
class Progress:
    """What measuring has done so far, for a progress bar."""

    done: int
    total: int
    elapsed_s: float

    @property
    def remaining_s(self) -> float:
        """An estimate from the pace so far."""
        return self.elapsed_s / max(self.done, 1) * (self.total - self.done)


ProgressCallback = Callable[[Progress], None]


@dataclass
class Outcome:
    """measured: how many atoms. failures: reason by atom label and backend.

    stopped: why measuring ended early, or None.
    """

    measured: int = 0
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    stopped: str | None = None


def summarize(times_ns: Sequence[int], label: str = "") -> Measurement:
    """Median and half the interquartile range; robust against what else the machine does."""
    ordered = sorted(times_ns)
    if len(ordered) < 4:
        return Measurement(statistics.median(ordered), 0.0, len(ordered), label)
    low, _, high = statistics.quantiles(ordered, n=4)
    return Measurement(statistics.median(ordered), (high - low) / 2, len(ordered), label)


def warm_up(run: Callable[[str], object], names: Iterable[str]) -> None:
    """Run methods in turn until the threads have spread over the processors.

    After a pause, the threads of a pool may share one processor for some hundredths of a second;
    until the scheduler parts them, they are no faster than one.
    """
    order = list(names)
    stop = time.monotonic() + _WARM_UP_S
    while order and time.monotonic() < stop:
        for name in order:
            run(name)


def missing_tasks(
    tasks: Iterable[Task], table: CostTable, environments: Mapping[str, Environment]
) -> list[Task]:
    """Return the tasks that the table has no answer for, each once.

    environments: by backend.
    """
    unique = {(task.backend_name, task.key): task for task in tasks}
    keys: dict[str, list[str]] = {}
    for backend, key in unique:
        keys.setdefault(backend, []).append(key)
    known = {
        (backend, key)
        for backend, wanted in keys.items()
        for key in table.get(environments[backend], backend, wanted)
    }
    return [task for place, task in unique.items() if place not in known]


def measure(
    tasks: Iterable[Task],
    table: CostTable,
    threads: int,
    *,
    budget_s: float | None = None,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Measures what the table lacks, and stores every batch as soon as it is done.

    Args:
        tasks: atoms with the backends to time them on.
        threads: of the runtime.
        budget_s: stop starting new batches after this many seconds.
        progress: called before the first batch and after every one.

    Ctrl-C ends measuring early; what was measured is kept.
    """
    tasks = list(tasks)
    machine = host(threads)
    backends = {each.backend_name: each.backend for each in tasks if each.backend is not None}
    environments = {
        name: machine.running(versions) for name, versions in versions_of(backends.values()).items()
    }
    missing = missing_tasks(tasks, table, environments)
    levels = known_levels(table, environments)
    outcome = Outcome()
    start = time.monotonic()
    done = 0

    def tell() -> None:
        if progress is not None and missing:
            progress(Progress(done, len(missing), time.monotonic() - start))

    try:
        tell()
        for batch in batches(missing, outcome):
            if budget_s is not None and time.monotonic() - start > budget_s:
                outcome.stopped = f"the budget of {budget_s:g} s is used up"
                break
            _measure_batch(batch, table, environments, levels, outcome)
            done += sum(task.key not in BESIDE for task, _ in batch.values())
            tell()
    except KeyboardInterrupt:
        outcome.stopped = INTERRUPTED
    return outcome


def batches(tasks: Sequence[Task], outcome: Outcome) -> Iterator[dict[str, tuple[Task, Request]]]:
    """Yield the tasks by method name, cut out, each batch with what is timed beside it.

    That is the baselines of its backends, and reference products.
    """
    beside: dict[str, dict[str, tuple[Task, Request]]] = {}
    for batch in _batches(tasks, outcome):
        for backend in [None, *(task.backend for task, _ in batch.values())]:
            name = KERNELS if backend is None else backend.name
            if name not in beside:
                made = {"baseline": baseline_task(backend), "reference": reference_task(backend)}
                beside[name] = {
                    f"{kind}_{name}": (task, Request(task.extract(), task.backend))
                    for kind, task in made.items()
                    if task is not None
                }
            batch |= beside[name]
        yield batch


def _batches(tasks: Sequence[Task], outcome: Outcome) -> Iterator[dict[str, tuple[Task, Request]]]:
    batch: dict[str, tuple[Task, Request]] = {}
    size = 0
    for number, task in enumerate(tasks):
        try:
            atom = task.extract()
        except NotMeasurableError as error:
            outcome.failures[task.label, task.backend_name] = str(error)
            continue
        batch[f"m{number}"] = (task, Request(atom, task.backend, task.separate_calls))
        size += _weight_bytes(atom)
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _weight_bytes(atom: AtomProgram) -> int:
    return sum(weight.nbytes for weight in atom.program.state_dict.values())


def _measure_batch(
    batch: Mapping[str, tuple[Task, Request]],
    table: CostTable,
    environments: Mapping[str, Environment],
    levels: MutableMapping[str, float],
    outcome: Outcome,
) -> None:
    (threads,) = {environment.threads for environment in environments.values()}
    programs, failures = compile_what_can_be({name: each[1] for name, each in batch.items()})
    used = {task.backend_name: task.backend for task, _ in batch.values() if task.backend}
    options = load_options(used.values(), threads)
    methods: dict[str, NativeProgram] = {}
    for buffer, names in programs:
        failures |= _failures_of_trial(buffer, names, batch, threads)
        program = NativeProgram.mapped(buffer, num_threads=threads, backend_options=options)
        methods |= {name: program for name in names if name not in failures}
    results: dict[str, dict[str, Measurement]] = {}

    def store(name: str, measured: Measurement) -> None:
        task = batch[name][0]
        results.setdefault(task.backend_name, {})[task.key] = measured

    first = _first_times(batch, methods, failures)
    for name, reason in failures.items():
        task = batch[name][0]
        outcome.failures[task.label, task.backend_name] = reason
        store(name, Measurement(0.0, 0.0, 0, reason[:500]))
    try:
        times = _time_in_turn(batch, methods, first)
        measured = {name: summarize(each, batch[name][0].label) for name, each in times.items()}
        places = {name: batch[name][0].place for name in measured}
        alone = without_baselines(places, measured)
        for name, found in at_one_speed(places, alone, levels).items():
            store(name, found)
            outcome.measured += batch[name][0].key not in BESIDE
    finally:
        for backend, measurements in results.items():
            table.put(environments[backend], backend, measurements)


def _failures_of_trial(
    buffer: bytes,
    names: Iterable[str],
    batch: Mapping[str, tuple[Task, Request]],
    threads: int,
) -> dict[str, str]:
    """Run those methods apart whose delegates are not proven; say which of them may not be run."""
    unproven = {
        name: backend
        for name in names
        if (backend := batch[name][0].backend) is not None and not backend.is_proven
    }
    if not unproven:
        return {}
    backends = list({backend.name: backend for backend in unproven.values()}.values())
    inputs = {name: batch[name][1].atom.example_inputs for name in unproven}
    with tempfile.NamedTemporaryFile(suffix=".pte") as file:
        file.write(buffer)
        file.flush()
        return try_out(Path(file.name), inputs, backends, threads).failures


def without_baselines(
    places: Mapping[str, Place], measured: Mapping[str, Measurement]
) -> dict[str, Measurement]:
    """Return what atoms took beyond the baseline of their backend, or else of the kernels.

    places: of one batch, by the same names as what was measured.
    """
    baselines = {
        place.backend: measured[name] for name, place in places.items() if place.key == BASELINE
    }
    return {
        name: beyond(measured[name], baselines.get(place.backend, baselines.get(KERNELS)))
        for name, place in places.items()
        if place.key != BASELINE
    }


def known_levels(table: CostTable, environments: Mapping[str, Environment]) -> dict[str, float]:
    """Return what the reference product took at the speed that the table's times are kept at.

    In ns, by delegate. environments: by backend.
    """
    return {
        name: found.median_ns
        for name, environment in environments.items()
        for found in table.get(environment, name, [REFERENCE]).values()
        if found.median_ns > 0
    }


def at_one_speed(
    places: Mapping[str, Place],
    measured: Mapping[str, Measurement],
    levels: MutableMapping[str, float],
) -> dict[str, Measurement]:
    """Return what atoms take where the reference products take what is set down in `levels`.

    A backend without a reference goes by the mean of the others.

    places: of one batch, by the same names as what was measured, or more. levels: in ns, by
        backend; those that are missing are set to what this batch has, and their references are
        returned as well.
    """
    references = {
        places[name].backend: name
        for name, each in measured.items()
        if places[name].key == REFERENCE and each.median_ns > 0
    }
    new = {name for backend, name in references.items() if backend not in levels}
    levels.update({places[name].backend: measured[name].median_ns for name in new})
    speeds = {
        backend: levels[backend] / measured[name].median_ns for backend, name in references.items()
    }
    usual = statistics.geometric_mean(speeds.values()) if speeds else 1.0
    found = {name: measured[name] for name in new}
    for name, each in measured.items():
        backend, key = places[name]
        if key != REFERENCE:
            speed = speeds.get(backend, usual)
            found[name] = replace(
                each, median_ns=each.median_ns * speed, spread_ns=each.spread_ns * speed
            )
    return found


def beyond(measured: Measurement, baseline: Measurement | None) -> Measurement:
    """Return what an atom took beyond its baseline; nothing is taken off where there is none."""
    if baseline is None or baseline.failed or measured.failed:
        return measured
    median_ns = max(measured.median_ns - baseline.median_ns, 0.0)
    spread_ns = math.hypot(measured.spread_ns, baseline.spread_ns)
    return replace(measured, median_ns=median_ns, spread_ns=spread_ns)


def _first_times(
    batch: Mapping[str, tuple[Task, Request]],
    methods: Mapping[str, NativeProgram],
    failures: dict[str, str],
) -> dict[str, int]:
    """Load and warm up every method; give a first time of each, in ns, and note what fails."""
    first = {}
    for name, program in methods.items():
        try:
            inputs = batch[name][1].atom.example_inputs
            (first[name],) = program.time(name, inputs, runs=1, warmup=_WARMUP)
        except (RuntimeError, ValueError, TypeError) as error:
            failures[name] = str(error)
    return first


def _time_in_turn(
    batch: Mapping[str, tuple[Task, Request]],
    methods: Mapping[str, NativeProgram],
    first: Mapping[str, int],
) -> dict[str, list[int]]:
    def inputs_of(name: str) -> Sequence[torch.Tensor]:
        return batch[name][1].atom.example_inputs

    runs = {
        name: int(min(max(_TARGET_NS / max(ns, 1), _MIN_RUNS), _MAX_RUNS))
        for name, ns in first.items()
    }
    times: dict[str, list[int]] = {name: [] for name in runs}

    def run(name: str) -> list[int]:
        return methods[name].time(name, inputs_of(name), runs=1, warmup=0, in_cache=True)

    warm_up(run, runs)
    for number in range(max(runs.values(), default=0)):
        for name, count in runs.items():
            if number < count:
                times[name] += run(name)
    return times
