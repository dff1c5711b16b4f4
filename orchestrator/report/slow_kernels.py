"""A warning about plans that leave most of the time to ExecuTorch's kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.report.data import AtomReport, MethodReport

MOST = 0.5
"""The share of the predicted time above which kernels are warned about."""
_OPS = 4  # to name


def slow_kernels(method: MethodReport, backends: Sequence[str]) -> str | None:
    """Say which ops make kernels take most of a method's predicted time; None if they do not.

    Ops that some delegate takes do not count: they are left to kernels where that is faster, or
    where the user wants it.

    backends: names of the delegates that were asked; without any, kernels are what was wanted.
    """
    plan = method.plan
    if not backends or plan is None or not plan.predicted_ns:
        return None
    left = [atom for atom in method.atoms if _is_left(method, atom, backends)]
    total = plan.predicted_ns
    taken = sum(atom.predicted_ns or 0.0 for atom in left)
    if taken <= MOST * total:
        return None
    times, counts = Counter[str](), Counter[str]()
    reasons: dict[str, str] = {}
    for atom in left:
        op = atom.ops[0]
        times[op] += atom.predicted_ns or 0.0  # type: ignore[assignment]
        counts[op] += 1
        reasons.setdefault(op, _reason(method, atom))
    worst = "; ".join(
        f"{op} ({_times(counts[op])}{time / total:.0%}): {reasons[op]}"
        for op, time in times.most_common(_OPS)
    )
    more = len(times) - _OPS
    return (
        f"method {method.name!r}: ExecuTorch's kernels are predicted to take {taken / total:.0%} "
        f"of the time, for ops that no delegate takes. The slowest are {worst}"
        + (f"; and {more} more" if more > 0 else "")
        + ". render_text(program.report) has all of them, and what would help"
    )


def _is_left(method: MethodReport, atom: AtomReport, backends: Sequence[str]) -> bool:
    if method.segments[atom.segment].is_delegate:
        return False
    return not any(name in atom.costs_ns for name in backends)


def _times(count: int) -> str:
    return f"{count} times, " if count > 1 else ""


def _reason(method: MethodReport, atom: AtomReport) -> str:
    reasons = {
        rejection.backend: rejection.reason
        for rejection in method.rejections
        if rejection.node in atom.nodes
    }
    return ", ".join(f"{backend}: {reason}" for backend, reason in reasons.items()) or "none asked"
