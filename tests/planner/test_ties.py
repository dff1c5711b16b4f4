"""Costs that cannot be told apart: fewer partitions win, and nothing else changes."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planner import AtomCost, CostGraph, Price, check_segments, solve
from tests.planner.harness import delegates, graph_of
from tests.planner.random_graphs import cost_graphs

BACKENDS = delegates("ggml", "xnnpack", overhead_ns=2.0)


def _layers(count: int, ns: tuple[float, float], spread: float, *, alike: bool) -> CostGraph:
    """Layers of an op that ggml alone does well and one that costs `ns` on ggml and on XNNPACK."""
    costs: dict[str, dict[str, AtomCost]] = {}
    for layer in range(count):
        costs[f"norm{layer}"] = {"ggml": 10.0, "xnnpack": 500.0}
        costs[f"linear{layer}"] = {
            name: Price(each, spread * each, f"{name} linear" if alike else "")
            for name, each in zip(("ggml", "xnnpack"), ns, strict=True)
        }
    return graph_of(BACKENDS, costs, list(itertools.pairwise(costs)))


def test_a_small_gain_is_no_surer_for_being_claimed_of_many_layers() -> None:
    assert len(solve(_layers(30, (110.0, 100.0), 0.0, alike=True)).partitions) == 60
    plan = solve(_layers(30, (110.0, 100.0), 0.25, alike=True))
    assert len(plan.partitions) == 1
    assert any("within the spread" in note for note in plan.notes)


def test_many_independent_small_gains_make_a_sure_one() -> None:
    assert len(solve(_layers(2, (110.0, 100.0), 0.1, alike=False)).partitions) < 4
    assert len(solve(_layers(200, (110.0, 100.0), 0.1, alike=False)).partitions) == 400


def test_gains_beyond_the_spread_are_kept() -> None:
    graph = _layers(30, (300.0, 100.0), 0.25, alike=True)
    plan = solve(graph)
    assert len(plan.partitions) == 60
    assert plan.gap == 0.0


def test_of_plans_with_as_few_partitions_the_cheapest_is_taken() -> None:
    costs: dict[str, dict[str, AtomCost]] = {
        name: {
            backend: Price(ns, 0.25 * ns, backend)
            for backend, ns in zip(("ggml", "xnnpack"), prices, strict=True)
        }
        for name, prices in {"a": (100.0, 110.0), "b": (115.0, 100.0), "c": (100.0, 110.0)}.items()
    }
    plan = solve(graph_of(BACKENDS, costs, [("a", "b"), ("b", "c")]))
    assert set(plan.assignment.values()) == {"ggml"}


def test_the_spread_of_a_plan_adds_up_what_errs_alike() -> None:
    alike = solve(_layers(4, (100.0, 900.0), 0.1, alike=True))
    apart = solve(_layers(4, (100.0, 900.0), 0.1, alike=False))
    assert alike.cost.spread_ns == pytest.approx(40.0)
    assert apart.cost.spread_ns == pytest.approx(20.0)


@settings(max_examples=400, deadline=None)
@given(cost_graphs(), st.floats(0.0, 0.5), st.integers(1, 3), st.integers(0, 2**32))
def test_a_tie_has_fewer_partitions_and_costs_no_more_than_the_spread(
    graph: CostGraph, spread: float, sources: int, seed: int
) -> None:
    random = Random(seed)
    names = ["", "estimate", "another"][:sources]
    changes = {
        atom.id: {
            graph.backends[option.backend].name: {
                option.flow: Price(option.price.ns, spread * option.price.ns, random.choice(names))
            }
            for option in graph.options[index]
            if option.price is not None
        }
        for index, atom in enumerate(graph.atoms)
    }
    uncertain = graph.with_costs(changes)
    exact = graph.with_costs(
        {
            atom: {
                backend: {flow: Price(price.ns) for flow, price in flows.items()}
                for backend, flows in by_backend.items()
            }
            for atom, by_backend in changes.items()
        }
    )
    best, plan = solve(exact, method="exact"), solve(uncertain, method="exact")
    check_segments(uncertain, plan.segments)
    assert plan.lower_bound_ns == pytest.approx(best.total_ns)
    if plan.assignment != best.assignment:
        assert len(plan.partitions) <= len(best.partitions)
    most = math.fsum(
        max(option.price.spread_ns for option in options if option.price)
        for options in uncertain.options
    )
    assert best.total_ns <= plan.total_ns + 1e-6
    assert plan.total_ns <= best.total_ns + 2 * most + 1e-6
