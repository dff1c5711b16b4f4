"""Correction factors: the time of a program over the sum of the times of its ops alone.

Ops that run alone, again and again, find their data and code in the caches and their delegate just
called; in a program they do not. Fitted over the timed plans of one method:

    measured = sum over backends of factor * (ops and boundaries) + calls * (known + extra)

in relative least squares with ridge penalties (Hoerl and Kennard, "Ridge Regression", Technometrics
1970). Few plans tell several backends apart, so that factors are drawn towards each other: one that
no plan shows is taken to be like the others, not to be 1. So is the extra time of calls, unless one
delegate's calls clearly take another than those of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.planner import Plan

# Ridge penalties, as relative errors: on the difference of two factors, on that of a factor and 1,
# and on the extra time of a call, in units of 10 us.
_ALIKE, _ONE, _FREE = 0.1, 0.02, 0.003
# Calls of all delegates take the same more, unless that explains the times worse than this, and so
# many times worse than a time for each.
_WELL, _BETTER = 0.01, 1.5
_LEAST, _MOST = 0.5, 3.0


@dataclass(frozen=True)
class ProgramFactors:
    """What programs take over predictions.

    by_delegate: times of its ops and boundaries, over those predicted. call_ns: what a call of it
        takes more than predicted, 0 or more.
    """

    by_delegate: dict[str, float]
    call_ns: dict[str, float] = field(default_factory=dict)


def fit(timed: Iterable[tuple[Plan, float]], delegates: Sequence[str]) -> ProgramFactors:
    """Explain measured times of plans, in ns; plans without a complete price say nothing."""
    known = [(plan, ns) for plan, ns in timed if plan.cost.is_complete and ns > 0]
    if not known or not delegates:
        return ProgramFactors({})
    rows = [_row(plan, delegates) for plan, _ in known]
    work = np.array([row[0] for row in rows])
    rest = np.array([row[1] for row in rows])
    calls = np.array([[float(_calls(plan, name)) for name in delegates] for plan, _ in known])
    times = np.array([ns for _, ns in known])
    count = len(delegates)
    alike = _fitted(work, calls.sum(axis=1, keepdims=True), times - rest, times)
    found, extra = alike.factors, np.repeat(alike.extra, count)
    apart = _fitted(work, calls, times - rest, times)
    if alike.error > max(_WELL, _BETTER * apart.error):
        found, extra = apart.factors, apart.extra
    factors = np.clip(found, _LEAST, _MOST)
    return ProgramFactors(
        {name: float(factor) for name, factor in zip(delegates, factors, strict=True)},
        {name: float(ns) for name, ns in zip(delegates, extra, strict=True)},
    )


@dataclass(frozen=True)
class _Fit:
    """factors: of work. extra: of calls, in ns. error: the root mean square of relative ones."""

    factors: np.ndarray
    extra: np.ndarray
    error: float


def _fitted(work: np.ndarray, calls: np.ndarray, targets: np.ndarray, times: np.ndarray) -> _Fit:
    """Fit factors of work, and extra times of calls that are not negative."""
    count = work.shape[1]
    dearer = list(range(calls.shape[1]))  # those that take more than predicted
    while True:
        columns = np.hstack([work, calls[:, dearer] * _SCALE_NS])
        found = _solved(columns, targets, times, count)
        if (found[count:] >= 0).all():
            break
        del dearer[int(found[count:].argmin())]  # it takes what it takes
    extra = np.zeros(calls.shape[1])
    extra[dearer] = found[count:] * _SCALE_NS
    off = (columns @ found - targets) / times
    return _Fit(found[:count], extra, float(np.sqrt(np.mean(off**2))))


def _calls(plan: Plan, delegate: str) -> int:
    return sum(segment.backend == delegate for segment in plan.partitions)


_SCALE_NS = 1e4  # the unit of the extra time of a call


def _row(plan: Plan, delegates: Sequence[str]) -> tuple[list[float], float]:
    """Predicted work by delegate, and what has no factor: calls, and kernels."""
    work = dict.fromkeys(delegates, 0.0)
    rest = 0.0
    for segment, cost in zip(plan.segments, plan.cost.segments, strict=True):
        inside = cost.atoms_ns + cost.boundary_ns
        if segment.backend in work:
            work[segment.backend] += inside
        else:
            rest += inside
        rest += cost.overhead_ns
    return list(work.values()), rest


def _solved(columns: np.ndarray, targets: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    scaled = columns / times[:, None]
    width = columns.shape[1]
    pulls, goals = [], []
    for one in range(count):
        towards = np.zeros(width)
        towards[one] = _ONE
        pulls.append(towards)
        goals.append(_ONE)
        for other in range(one):
            alike = np.zeros(width)
            alike[one], alike[other] = _ALIKE, -_ALIKE
            pulls.append(alike)
            goals.append(0.0)
    for one in range(count, width):
        towards = np.zeros(width)
        towards[one] = _FREE
        pulls.append(towards)
        goals.append(0.0)
    left = np.vstack([scaled, *pulls])
    right = np.concatenate([targets / times, goals])
    found: np.ndarray = np.linalg.lstsq(left, right, rcond=None)[0]
    return found
