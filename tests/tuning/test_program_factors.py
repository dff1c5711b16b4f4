"""Fitting what whole programs take over their ops, on plans with known answers."""

from __future__ import annotations

import pytest

from orchestrator.planner import (
    Atom,
    Backend,
    CostGraph,
    Plan,
    Tensor,
    price_plan,
    split_into_segments,
)
from orchestrator.tuning.program_factors import fit

DELEGATES = ("a", "b")
COST = 100_000.0


def plan(assignment: str) -> Plan:
    """A chain of atoms of equal cost; one letter each says where it runs, "k" for kernels."""
    names = {"a": "a", "b": "b", "k": "k"}
    atoms = [Atom(f"n{i}", dict.fromkeys(names, COST)) for i in range(len(assignment))]
    tensors = [
        Tensor(f"t{i}", f"n{i}", (f"n{i + 1}",) if i + 1 < len(assignment) else (), 4, False)
        for i in range(len(assignment) - 1)
    ]
    backends = [Backend("a", 1000.0), Backend("b", 2000.0), Backend("k", is_delegate=False)]
    graph = CostGraph(backends, atoms, tensors)
    where = {f"n{i}": names[letter] for i, letter in enumerate(assignment)}
    return price_plan(graph, split_into_segments(graph, where), solver="made up")


def measured(
    assignment: str, a: float, b: float, call: float, other: float | None = None
) -> tuple[Plan, float]:
    """A plan, and its time if work on a and b takes so many times more, and a call so much.

    other: of b, if not as of a.
    """
    made = plan(assignment)
    known = {"a": 1000.0 + call, "b": 2000.0 + (call if other is None else other)}
    calls = sum(known[segment.backend] for segment in made.partitions)
    factors = {"a": a, "b": b, "k": 1.0}
    return made, calls + sum(COST * factors[letter] for letter in assignment)


def test_factors_and_calls_are_told_apart() -> None:
    plans = ("aaaaaaaa", "bbbbbbbb", "aaaabbbb", "abababab", "aabbaabb", "aakkbbkk")
    found = fit([measured(each, 1.4, 1.2, 7000.0) for each in plans], DELEGATES)
    assert found.by_delegate == pytest.approx({"a": 1.4, "b": 1.2}, rel=0.03)
    assert found.call_ns == pytest.approx({"a": 7000.0, "b": 7000.0}, rel=0.15)


def test_calls_of_one_backend_are_not_charged_to_the_other() -> None:
    plans = ("aaaaaaaa", "bbbbbbbb", "akakakak", "bkbkbkbk", "aaaabbbb", "abababab")
    found = fit([measured(each, 1.2, 1.1, 0.0, 293_000.0) for each in plans], DELEGATES)
    assert found.call_ns["b"] == pytest.approx(293_000.0, rel=0.15)
    assert found.call_ns["a"] < 20_000.0
    assert found.by_delegate == pytest.approx({"a": 1.2, "b": 1.1}, rel=0.05)


def test_a_backend_that_no_plan_shows_is_like_the_others() -> None:
    found = fit([measured("aaaaaaaa", 1.5, 1.0, 0.0)], DELEGATES)
    assert found.by_delegate["b"] == pytest.approx(found.by_delegate["a"], rel=0.05)
    assert found.by_delegate["a"] > 1.4


def test_calls_never_take_less_than_nothing() -> None:
    plans = ("aaaaaaaa", "bbbbbbbb", "abababab", "aabbaabb")
    found = fit([measured(each, 1.3, 1.3, -900.0) for each in plans], DELEGATES)
    assert found.call_ns == {"a": 0.0, "b": 0.0}
    assert found.by_delegate == pytest.approx({"a": 1.3, "b": 1.3}, rel=0.05)


def test_nothing_timed_shows_nothing() -> None:
    assert fit([], DELEGATES).by_delegate == {}
    assert fit([measured("ak", 2.0, 1.0, 0.0)], []).by_delegate == {}
