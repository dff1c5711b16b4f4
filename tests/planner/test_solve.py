"""The solvers against oracles, on random graphs; then one behaviour at a time."""

from __future__ import annotations

import itertools
import math
import sys

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planner_graphs import decoder
from orchestrator.planner import (
    UNKNOWN,
    Atom,
    Constant,
    ConstraintError,
    Constraints,
    CostGraph,
    Exclude,
    InfeasibleAtomError,
    Pin,
    Plan,
    Price,
    Tensor,
    Transfer,
    UnknownCostError,
    check_segments,
    greedy,
    lower_bound,
    min_cut_bound,
    price_plan,
    quotient_graph,
    solve,
)
from tests.planner.brute_force import best_cost, enumerate_plans
from tests.planner.harness import PORTABLE, delegates, graph_of
from tests.planner.random_graphs import cost_graphs

GX = delegates("ggml", "xnnpack")
solve_module = sys.modules[solve.__module__]


def _assert_legal(graph: CostGraph, plan: Plan) -> None:
    check_segments(graph, plan.segments)
    quotient = quotient_graph(graph, [segment.atoms for segment in plan.partitions])
    assert nx.is_directed_acyclic_graph(quotient)
    again = price_plan(graph, plan.segments, solver="again", flows=plan.flows)
    assert again.total_ns == pytest.approx(plan.total_ns)


@settings(max_examples=500, deadline=None)
@given(cost_graphs())
def test_exact_is_the_oracles_optimum_between_bound_and_greedy(graph: CostGraph) -> None:
    plan = solve(graph, method="exact")
    _assert_legal(graph, plan)
    assert plan.total_ns == pytest.approx(best_cost(graph))
    assert plan.gap == 0.0
    assert lower_bound(graph) <= plan.total_ns + 1e-6
    if len(graph.backends) == 2:
        assert min_cut_bound(graph) <= plan.total_ns + 1e-6
    simple = greedy(graph)
    _assert_legal(graph, simple)
    assert plan.total_ns <= simple.total_ns + 1e-6


@settings(max_examples=150, deadline=None)
@given(cost_graphs(min_atoms=9, max_atoms=14))
def test_a_beam_stays_between_bound_and_greedy(graph: CostGraph) -> None:
    exact = solve(graph, method="exact")
    beam = solve(graph, method="beam")
    _assert_legal(graph, beam)
    assert beam.lower_bound_ns is not None
    assert beam.lower_bound_ns <= exact.total_ns + 1e-6
    assert exact.total_ns <= beam.total_ns + 1e-6
    assert beam.total_ns <= greedy(graph).total_ns + 1e-6


@settings(max_examples=200, deadline=None)
@given(cost_graphs(), st.sampled_from([None, 30, 100]))
def test_the_restricted_search_and_its_bound_enclose_the_optimum(
    graph: CostGraph, room: int | None
) -> None:
    """With room for the relaxed search that proves it, or for less."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve_module, "_MOST_ATOMS_UNRESTRICTED", 0)
        plan = solve(graph, room=room)
    _assert_legal(graph, plan)
    best = best_cost(graph)
    assert best <= plan.total_ns + 1e-6
    assert plan.lower_bound_ns is not None
    assert plan.lower_bound_ns <= best + 1e-6


@settings(max_examples=150, deadline=None)
@given(cost_graphs(min_atoms=3, max_atoms=4), st.integers(0, 3))
def test_a_limit_on_partitions_gives_the_best_plan_within_it(graph: CostGraph, most: int) -> None:
    within = [p.total_ns for p in enumerate_plans(graph) if len(p.partitions) <= most]
    limit = Constraints(max_partitions=most)
    if not within:
        with pytest.raises(ConstraintError, match=f"max_partitions={most}"):
            solve(graph, limit, method="exact")
        return
    plan = solve(graph, limit, method="exact")
    _assert_legal(graph, plan)
    assert len(plan.partitions) <= most
    assert plan.total_ns == pytest.approx(min(within))


def _pair(**costs: dict[str, object]) -> CostGraph:
    names = list(costs)
    edges = list(itertools.pairwise(names))
    return graph_of([*GX, PORTABLE], costs, edges)  # type: ignore[arg-type]


class TestConstraints:
    graph = _pair(
        a={"ggml": 1.0, "xnnpack": 5.0},
        b={"ggml": 1.0, "xnnpack": 5.0, "portable": 50.0},
        c={"xnnpack": 1.0},
    )

    def test_a_pin_is_obeyed_whatever_it_costs(self) -> None:
        plan = solve(self.graph, Constraints(pins=(Pin("b*", ("b",), "portable"),)))
        assert plan.assignment == {"a": "ggml", "b": "portable", "c": "xnnpack"}

    def test_an_excluded_backend_is_not_used(self) -> None:
        plan = solve(self.graph, Constraints(excludes=(Exclude("b", ("b",), ("ggml",)),)))
        assert plan.assignment["b"] == "xnnpack"

    @pytest.mark.parametrize(
        ("constraints", "message"),
        [
            (
                Constraints(pins=(Pin("x.*", ("a",), "ggml"), Pin("x.y", ("a",), "xnnpack"))),
                r"pins 'x\.\*' -> 'ggml' and 'x\.y' -> 'xnnpack' contradict each other",
            ),
            (Constraints(pins=(Pin("c", ("c",), "ggml"),)), "'ggml', which cannot run the atom"),
            (Constraints(pins=(Pin("gone", (), "ggml"),)), "pin 'gone' matches nothing"),
            (Constraints(excludes=(Exclude("gone", (), ("ggml",)),)), "'gone' matches nothing"),
            (
                Constraints(excludes=(Exclude("c", ("c",), ("xnnpack",)),)),
                r"excludes \['c'\] leave no backend for the atom 'c'",
            ),
            (
                Constraints(
                    pins=(Pin("p", ("b",), "ggml"),), excludes=(Exclude("e", ("b",), ("ggml",)),)
                ),
                "pin 'p' -> 'ggml' and exclude 'e' contradict each other",
            ),
        ],
    )
    def test_contradictions_are_errors_that_name_them(
        self, constraints: Constraints, message: str
    ) -> None:
        with pytest.raises(ConstraintError, match=message):
            solve(self.graph, constraints)

    def test_a_limit_on_copied_weights_keeps_their_users_together(self) -> None:
        atoms = [Atom("a", {"ggml": 1.0, "xnnpack": 9.0}), Atom("b", {"ggml": 9.0, "xnnpack": 1.0})]
        shared = [Constant("w", 100, ("a", "b"))]
        graph = CostGraph(GX, atoms, [Tensor("t", "a", ("b",))], shared)
        assert len(set(solve(graph).assignment.values())) == 2
        together = solve(graph, Constraints(max_duplicated_bytes=99))
        assert len(set(together.assignment.values())) == 1
        assert together.total_ns == 10.0


def test_costs_within_their_spread_are_ties_that_fewer_partitions_win() -> None:
    def graph(spread: float) -> CostGraph:
        def price(ns: float) -> Price:
            return Price(ns, spread)

        return _pair(
            a={"ggml": price(100.0), "xnnpack": price(500.0)},
            b={"ggml": price(101.0), "xnnpack": price(99.0)},
            c={"ggml": price(100.0), "xnnpack": price(500.0)},
        )

    assert len(solve(graph(0.0)).partitions) == 3
    plan = solve(graph(5.0))
    assert len(plan.partitions) == 1
    assert any("within the spread" in note for note in plan.notes)


def test_an_unknown_cost_is_left_out_where_another_is_known_and_said_so() -> None:
    plan = solve(_pair(a={"ggml": UNKNOWN, "xnnpack": 7.0}))
    assert plan.assignment == {"a": "xnnpack"}
    assert any("'a' on 'ggml'" in note for note in plan.notes)
    with pytest.raises(UnknownCostError, match="atom 'a' is unknown on every backend"):
        solve(_pair(a={"ggml": UNKNOWN}))
    with pytest.raises(InfeasibleAtomError, match="no backend can run the atom 'a'"):
        solve(_pair(a={}))


def test_a_tensor_is_charged_once_however_many_read_it() -> None:
    costs = {
        "a": {"ggml": 1.0},
        "b": {"xnnpack": 1.0},
        "c": {"xnnpack": 1.0},
    }
    transfer = Transfer(read_ns=10.0, write_ns=5.0)
    graph = graph_of(GX, costs, [("a", "b"), ("a", "c")], transfer=transfer)  # type: ignore[arg-type]
    assert solve(graph).total_ns == 1 + 5 + 10 + 2


def test_large_graphs_fall_back_to_a_beam_and_say_so() -> None:
    graph = decoder(60, distinct=True, masks=True)
    plan = solve(graph, room=5)
    _assert_legal(graph, plan)
    assert plan.solver in ("beam", "greedy")
    assert plan.gap is not None and math.isfinite(plan.gap)
    assert any("too large" in note for note in plan.notes)


def _long_chain(other_ns: float) -> CostGraph:
    """A chain in which every third atom would be cheaper on the other delegate."""
    costs = {f"a{i}": {"g": 1_000.0, "x": other_ns if i % 3 == 0 else 2_000.0} for i in range(450)}
    edges = [("in", "a0"), *itertools.pairwise(costs)]
    return graph_of(delegates("g", "x", overhead_ns=400.0), costs, edges)  # type: ignore[arg-type]


def test_nothing_is_looked_for_where_one_delegate_is_as_good_as_any_plan() -> None:
    plan = solve(_long_chain(1_000.0))
    assert (plan.solver, plan.states, len(plan.partitions)) == ("greedy", 0, 1)
    assert plan.gap is not None and plan.gap <= 0.003
    assert any("No better plan was looked for" in note for note in plan.notes)


def test_a_search_follows_where_the_bound_leaves_room() -> None:
    graph = _long_chain(100.0)
    plan = solve(graph)
    assert plan.solver == "exact"
    assert plan.total_ns < min(solve(graph, method="greedy").total_ns, 450 * 1_000.0)
