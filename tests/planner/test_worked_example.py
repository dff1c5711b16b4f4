"""The example of docs/planner.md, figure by figure."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.planner import (
    Atom,
    Backend,
    Calls,
    Constraints,
    CostGraph,
    IllegalPlanError,
    Plan,
    Price,
    Segment,
    Tensor,
    check_segments,
    greedy,
    lower_bound,
    price_plan,
    solve,
)
from orchestrator.planner.blocks import find_cuts

F, W, K = "fast", "wide", "kernels"
COSTS = {
    "stem": {F: 50.0, W: 60.0, K: 900.0},
    "left": {F: 40.0, W: 90.0, K: 900.0},
    "right": {W: 30.0, K: 500.0},
    "join": {F: 20.0, W: 40.0, K: 900.0},
    "head": {F: 30.0, W: 25.0, K: 900.0},
}
READERS = {"stem": ("left", "right"), "left": ("join",), "right": ("join",), "join": ("head",)}


def example(call_ns: float = 10.0, spread: float = 0.0) -> CostGraph:
    """The graph of the page."""
    backends = [Backend(F, call_ns), Backend(W, call_ns), Backend(K, is_delegate=False)]
    atoms = [
        Atom(name, {backend: Price(ns, spread * ns, backend) for backend, ns in row.items()})
        for name, row in COSTS.items()
    ]
    tensors = [
        Tensor(f"of {name}", name, READERS.get(name, ()), 4, is_output=name == "head")
        for name in COSTS
    ]
    return CostGraph(backends, atoms, tensors)


def _segments(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    return [(segment.backend, segment.atoms) for segment in plan.segments]


def _ns(*parts: tuple[str, str]) -> float:
    segments = [Segment(backend, tuple(atoms.split()), backend != K) for backend, atoms in parts]
    check_segments(example(), segments)
    return price_plan(example(), segments, solver="by hand").total_ns


def test_ideals_and_cuts() -> None:
    makers = {reader: {m for m, rs in READERS.items() if reader in rs} for reader in COSTS}
    subsets = (set(names) for count in range(6) for names in itertools.combinations(COSTS, count))
    ideals = [names for names in subsets if all(makers[name] <= names for name in names)]
    assert len(ideals) == 7
    graph = example()
    assert find_cuts(graph.preds, graph.succs) == [0, 1, 4, 5]


def test_plans_by_hand() -> None:
    assert _ns((W, "stem left right join head")) == 255
    assert _ns((F, "stem left"), (W, "right"), (F, "join head")) == 200
    assert _ns((F, "stem left"), (W, "right join head")) == 205
    assert _ns((W, "stem right"), (F, "left join head")) == 200


def test_two_calls_that_feed_each_other_are_no_plan() -> None:
    with pytest.raises(IllegalPlanError, match="cycle"):
        _ns((F, "stem left join head"), (W, "right"))


def test_the_cheapest_plan_its_bound_and_the_baseline() -> None:
    plan = solve(example())
    assert _segments(plan) == [(W, ("stem", "right")), (F, ("left", "join", "head"))]
    assert (plan.total_ns, plan.lower_bound_ns, plan.gap) == (200, 200, 0)
    baseline = greedy(example())
    assert (baseline.total_ns, len(baseline.partitions)) == (200, 3)
    assert lower_bound(example()) == pytest.approx(180)


def test_dearer_calls_make_fewer() -> None:
    assert len(solve(example(call_ns=50.0)).partitions) == 2
    assert _segments(solve(example(call_ns=70.0))) == [(W, tuple(COSTS))]


def test_ties() -> None:
    assert len(solve(example(spread=0.4)).partitions) == 2
    plan = solve(example(spread=0.5))
    assert _segments(plan) == [(W, tuple(COSTS))]
    assert plan.total_ns == 255
    assert "is within the spread of the costs" in plan.notes[0]


def test_a_call_that_is_refused() -> None:
    pair = {"left", "join"}
    calls = Calls(lambda name, atoms: "a fault" if name == F and pair <= {*atoms} else None)
    apart = calls.taken_apart(example(), solve(example()))
    assert _segments(apart) == [(W, ("stem", "right")), (F, ("left",)), (F, ("join", "head"))]
    assert apart.total_ns == 210
    plan = solve(example(), Constraints(calls=calls))
    assert list(calls.apart) == [(F, frozenset({"left", "join"}))]
    assert (plan.total_ns, len(plan.partitions), plan.gap) == (200, 3, 0)
