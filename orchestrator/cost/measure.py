"""Times atoms through the native runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from ggml_delegate.native import NativeProgram
from orchestrator.cost.compile import Request, compile_what_can_be
from orchestrator.cost.environment import Environment, host
from orchestrator.cost.table import CostTable, Measurement

# Per atom: enough runs for a stable median, little enough that a model takes seconds.
_MIN_RUNS = 7
_MAX_RUNS = 60
_TARGET_NS = 12e6
_WARMUP = 2
_BATCH = 24


@dataclass
class Progress:
    """What measuring has done so far, for a progress bar."""

    done: int
    total: int
    elapsed_s: float

    @property
    def remaining_s(self) -> float:
        """An estimate from the pace so far."""
        return self.elapsed_s / max(self.done, 1) * (self.total - self.done)


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


def time_method(program: NativeProgram, method: str, inputs: Sequence[torch.Tensor]) -> list[int]:
    """Times of the method alone, in ns."""
    (first,) = program.time(method, inputs, runs=1, warmup=_WARMUP)
    runs = int(min(max(_TARGET_NS / max(first, 1), _MIN_RUNS), _MAX_RUNS))
    return program.time(method, inputs, runs=runs, warmup=0)


def measure(
    requests: Iterable[Request],
    table: CostTable,
    threads: int,
    *,
    budget_s: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Measures what the table lacks, and stores every batch as soon as it is done.

    Args:
        requests: atoms with the backends to time them on.
        threads: of the runtime.
        budget_s: stop starting new batches after this many seconds.
        progress: called after every batch.

    Ctrl-C ends measuring early; what was measured is kept.
    """
    environment = host(threads)
    missing = _missing(requests, table, environment)
    outcome = Outcome()
    start = time.monotonic()
    try:
        for first in range(0, len(missing), _BATCH):
            if budget_s is not None and time.monotonic() - start > budget_s:
                outcome.stopped = f"the budget of {budget_s:g} s is used up"
                break
            batch = missing[first : first + _BATCH]
            _measure_batch(batch, table, environment, outcome)
            if progress is not None:
                done = min(first + _BATCH, len(missing))
                progress(Progress(done, len(missing), time.monotonic() - start))
    except KeyboardInterrupt:
        outcome.stopped = "interrupted"
    return outcome


def _missing(
    requests: Iterable[Request], table: CostTable, environment: Environment
) -> list[Request]:
    unique = {(request.backend_name, request.atom.key): request for request in requests}
    keys: dict[str, list[str]] = {}
    for backend, key in unique:
        keys.setdefault(backend, []).append(key)
    known = {
        (backend, key)
        for backend, wanted in keys.items()
        for key in table.get(environment, backend, wanted)
    }
    return [request for place, request in unique.items() if place not in known]


def _measure_batch(
    batch: Sequence[Request], table: CostTable, environment: Environment, outcome: Outcome
) -> None:
    named = {f"m{number}": request for number, request in enumerate(batch)}
    programs, failures = compile_what_can_be(named)
    for name, reason in failures.items():
        request = named[name]
        outcome.failures[request.atom.label, request.backend_name] = reason
    results: dict[str, dict[str, Measurement]] = {}
    try:
        for buffer, methods in programs:
            program = NativeProgram(buffer, num_threads=environment.threads)
            for method in methods:
                request = named[method]
                try:
                    times = time_method(program, method, request.atom.example_inputs)
                except (RuntimeError, ValueError, TypeError) as error:
                    outcome.failures[request.atom.label, request.backend_name] = str(error)
                    continue
                finally:
                    program.unload(method)
                measured = summarize(times, request.atom.label)
                results.setdefault(request.backend_name, {})[request.atom.key] = measured
    finally:
        for backend, measurements in results.items():
            table.put(environment, backend, measurements)
            outcome.measured += len(measurements)
