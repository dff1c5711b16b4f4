"""Correction factors: the time of a program over the sum of the times of its ops alone.

Ops that run alone, again and again, find their data and code in the caches and their delegate just
called; in a program they do not. Fitted over the timed plans of one method:

    measured = sum over backends of factor * (ops and boundaries there) + calls * (known + extra)

in relative least squares with ridge penalties (Hoerl and Kennard, "Ridge Regression", Technometrics
1970). Few plans tell several backends apart, so that factors are drawn towards each other: one that
no plan shows is taken to be like the others, not to be 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.planner import Plan

# Ridge penalties, as relative errors: on the difference of two factors, on that of a factor and 1,
# and on the extra time of a call, in units of 10 us.
_ALIKE, _ONE, _FREE = 0.1, 0.02, 0.003
_LEAST, _MOST = 0.5, 3.0


@dataclass(frozen=True)
class ProgramFactors:
    """What programs take over predictions.

    by_delegate: times of its ops and boundaries, over those predicted. call_ns: what a delegate
        call takes more than predicted, 0 or more.
    """

    by_delegate: dict[str, float]
    call_ns: float = 0.0


def fit(timed: Iterable[tuple[Plan, float]], delegates: Sequence[str]) -> ProgramFactors:
    """Explain measured times of plans, in ns; plans without a complete price say nothing."""
    known = [(plan, ns) for plan, ns in timed if plan.cost.is_complete and ns > 0]
    if not known or not delegates:
        return ProgramFactors({})
    rows = [_row(plan, delegates) for plan, _ in known]
    work = np.array([row[0] for row in rows])
    rest = np.array([row[1] for row in rows])
    calls = np.array([[float(len(plan.partitions))] for plan, _ in known])
    times = np.array([ns for _, ns in known])
    for columns in (np.hstack([work, calls * _SCALE_NS]), work):
        found = _solved(columns, times - rest, times, len(delegates))
        extra = found[len(delegates) :]
        if not extra.size or extra[0] >= 0:  # else once more without: calls take what they take
            break
    factors = np.clip(found[: len(delegates)], _LEAST, _MOST)
    return ProgramFactors(
        {name: float(factor) for name, factor in zip(delegates, factors, strict=True)},
        float(extra[0]) * _SCALE_NS if extra.size else 0.0,
    )


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
