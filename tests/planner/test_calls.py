"""Calls that a backend refuses: plans without them, the best ones, against all plans there are."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planner_graphs import decoder
from orchestrator.planner import (
    Atom,
    Backend,
    Calls,
    ConstraintError,
    Constraints,
    CostGraph,
    IllegalPlanError,
    Pin,
    Segment,
    Tensor,
    check_segments,
    greedy,
    price_plan,
    private_bytes,
    solve,
)
from tests.planner.brute_force import enumerate_plans
from tests.planner.harness import PORTABLE, delegates, graph_of
from tests.planner.random_graphs import cost_graphs


class Refusing:
    """Refuses calls with more than so many atoms, and those with all atoms of certain sets."""

    def __init__(self, graph: CostGraph, seed: int, most: int) -> None:
        random = Random(seed)
        names = [atom.id for atom in graph.atoms]
        self._most = most
        self._sets = {
            backend.name: [
                set(random.sample(names, random.randint(1, 3))) for _ in range(random.randint(0, 3))
            ]
            for backend in graph.backends
        }

    def __call__(self, backend: str, atoms: Sequence[str]) -> str | None:
        if len(atoms) > self._most:
            return f"{self._most} at most"
        if any(each <= set(atoms) for each in self._sets[backend]):
            return "not together"
        return None


def _best(graph: CostGraph, calls: Calls, most: int | None = None) -> float | None:
    """The cost of the best plan of all, None if there is none."""
    costs = [
        plan.total_ns
        for plan in enumerate_plans(graph)
        if calls.allows(plan) and (most is None or len(plan.partitions) <= most)
    ]
    return min(costs, default=None)


@settings(max_examples=150, deadline=None)
@given(
    graph=cost_graphs(min_atoms=3, max_atoms=4),
    seed=st.integers(0, 2**32 - 1),
    most=st.integers(1, 4),
    calls=st.one_of(st.none(), st.integers(1, 3)),
)
def test_the_plan_is_the_best_of_all_without_refused_calls(
    graph: CostGraph, seed: int, most: int, calls: int | None
) -> None:
    constraints = Constraints(calls=Calls(Refusing(graph, seed, most)), max_partitions=calls)
    best = _best(graph, Calls(Refusing(graph, seed, most)), calls)
    if best is None:
        with pytest.raises(ConstraintError):
            solve(graph, constraints, method="exact")
        return
    plan = solve(graph, constraints, method="exact")
    check_segments(graph, plan.segments)
    assert constraints.calls is not None and constraints.calls.allows(plan)
    assert calls is None or len(plan.partitions) <= calls
    assert plan.total_ns == pytest.approx(best)
    assert plan.gap == 0.0
    again = price_plan(graph, plan.segments, solver="again", flows=plan.flows)
    assert again.total_ns == pytest.approx(plan.total_ns)


@settings(max_examples=60, deadline=None)
@given(
    graph=cost_graphs(min_atoms=9, max_atoms=12),
    seed=st.integers(0, 2**32 - 1),
    most=st.integers(2, 5),
    method=st.sampled_from(["auto", "beam", "greedy"]),
)
def test_every_method_leaves_no_refused_call(
    graph: CostGraph, seed: int, most: int, method: str
) -> None:
    calls = Calls(Refusing(graph, seed, most))
    try:
        plan = solve(graph, Constraints(calls=calls), method=method)
    except ConstraintError as error:
        assert "leave no backend" in str(error)  # an atom that is refused everywhere
        return
    check_segments(graph, plan.segments)
    assert calls.allows(plan)
    free = solve(graph, method="exact")
    if not any(len(atoms) == 1 for _, atoms in calls.apart):
        assert free.total_ns <= plan.total_ns + 1e-6
    if plan.lower_bound_ns is not None:
        assert plan.lower_bound_ns <= plan.total_ns + 1e-6


ROW = ("a", "b", "c", "d")


def _row(overhead_ns: float = 2.0, **costs: Sequence[float]) -> CostGraph:
    """Atoms in a row; by backend, what each costs."""
    table = {
        atom: {name: row[place] for name, row in costs.items()} for place, atom in enumerate(ROW)
    }
    backends = delegates(
        *(name for name in costs if name != PORTABLE.name), overhead_ns=overhead_ns
    )
    edges = [*zip(("in", *ROW), ROW, strict=False)]
    return graph_of([*backends, PORTABLE], table, edges)


def _never(*together: str) -> Calls:
    """One backend, "one", refuses these atoms in one call."""

    def refusal(backend: str, atoms: Sequence[str]) -> str | None:
        return "a fault" if backend == "one" and set(together) <= set(atoms) else None

    return Calls(refusal)


class TestKeptApart:
    def test_a_call_is_cut_where_that_costs_least(self) -> None:
        graph = _row(one=[1, 1, 1, 1], two=[1.5, 9, 9, 9], portable=[50, 50, 50, 50])
        plan = solve(graph, Constraints(calls=_never("a", "d")))
        assert plan.total_ns == 4 + 2 * 2  # not in the order of the atoms: two calls of "one"
        assert [each.backend for each in plan.segments] == ["one", "one"]
        assert "Not in one call of one: a, d (a fault)." in plan.notes
        assert plan.gap == 0.0

    def test_another_backend_takes_an_atom_if_that_is_cheaper_than_another_call(self) -> None:
        graph = _row(5.0, one=[1, 1, 1, 1], portable=[50, 50, 50, 3])
        assert solve(graph).total_ns == 4 + 5
        plan = solve(graph, Constraints(calls=_never("a", "d")))
        assert plan.assignment == dict(zip(ROW, ["one", "one", "one", "portable"], strict=True))
        assert plan.gap == 0.0

    def test_limits_hold_as_well(self) -> None:
        graph = _row(1.0, one=[1, 1, 1, 1], two=[9, 9, 9, 9], portable=[50, 50, 50, 50])
        constraints = Constraints(max_partitions=1, calls=_never("a", "d"))
        plan = solve(graph, constraints)
        assert set(plan.assignment.values()) == {"two"} and len(plan.partitions) == 1

    def test_limits_that_leave_nothing_are_an_error(self) -> None:
        graph = _row(1.0, one=[1, 1, 1, 1])
        with pytest.raises(ConstraintError, match="max_partitions=1"):
            solve(graph, Constraints(max_partitions=1, calls=_never("a", "d")))

    def test_a_pin_to_what_refuses_the_atom_names_the_reason(self) -> None:
        graph = _row(one=[1, 1, 1, 1], portable=[5, 5, 5, 5])
        constraints = Constraints((Pin("layer", ("c",), "one"),), calls=_never("c"))
        with pytest.raises(ConstraintError, match=r"'layer'.*'a fault' contradict"):
            solve(graph, constraints)

    def test_an_atom_that_is_refused_alone_goes_elsewhere(self) -> None:
        graph = _row(one=[1, 1, 1, 1], portable=[5, 5, 5, 5])
        plan = solve(graph, Constraints(calls=_never("c")))
        assert [atom for atom in ROW if plan.assignment[atom] != "one"] == ["c"]

    @pytest.mark.parametrize("method", ["auto", "beam", "greedy"])
    def test_a_large_graph(self, method: str) -> None:
        """Each layer of a decoder has calls that are refused; atoms of masks float."""
        graph = decoder(12, distinct=True)
        names = [atom.id for atom in graph.atoms]
        random = Random(3)
        pairs = [set(random.sample(names[i : i + 8], 2)) for i in range(0, len(names) - 8, 8)]

        def refusal(backend: str, atoms: Sequence[str]) -> str | None:
            held = set(atoms)
            return "together" if any(pair <= held for pair in pairs) else None

        calls = Calls(refusal)
        plan = solve(graph, Constraints(calls=calls), method=method)  # type: ignore[arg-type]
        check_segments(graph, plan.segments)
        assert calls.allows(plan)
        assert plan.total_ns >= solve(graph).total_ns * 0.97  # among ties it may be a bit dearer


class TestTakenApart:
    def test_the_smallest_refused_sets_are_learned(self) -> None:
        graph = _row(one=[1, 1, 1, 1])
        calls = _never("b", "d")
        plan = greedy(graph)
        calls.learn(plan)
        assert list(calls.apart) == [("one", frozenset({"b", "d"}))]
        apart = calls.taken_apart(graph, plan)
        assert [each.atoms for each in apart.segments] == [("a", "b", "c"), ("d",)]
        assert apart.notes[-1] == "A call of one with 4 ops is 2: a fault."

    def test_an_allowed_plan_stays_as_it_is(self) -> None:
        graph = _row(one=[1, 1, 1, 1])
        plan = greedy(graph)
        assert Calls(lambda backend, atoms: None).taken_apart(graph, plan) is plan

    def test_an_atom_refused_alone_is_an_error(self) -> None:
        graph = _row(one=[1, 1, 1, 1])
        with pytest.raises(IllegalPlanError, match=r"'b'.*refuses it in any call: a fault"):
            _never("b").taken_apart(graph, price_plan(graph, [Segment("one", ROW)], solver="mine"))


def test_blocks_that_look_alike_are_counted_each() -> None:
    """Two layers of equal costs, of which one alone has weights: the limit sees them."""
    backends = (Backend("packs", 1.0, private_per_byte=1.0), PORTABLE)
    costs = {"packs": 1.0, "portable": 5.0}
    names = [f"a{number}" for number in range(6)]
    atoms = [
        Atom(name, costs, weight_bytes={"packs": 100 if number in (2, 4) else 0})
        for number, name in enumerate(names)
    ]
    tensors = [
        Tensor(f"t{name}", name, tuple(names[number + 1 : number + 2]), 4, name == names[-1])
        for number, name in enumerate(names)
    ]
    graph = CostGraph(backends, atoms, tensors)
    for most, used in ((200, 6), (150, 5), (50, 4)):
        plan = solve(graph, Constraints(max_private_bytes=most))
        assert private_bytes(graph, plan.assignment) <= most
        assert list(plan.assignment.values()).count("packs") == used


def test_what_is_learned_serves_other_graphs() -> None:
    calls = _never("a", "d")
    solve(_row(one=[1, 1, 1, 1], portable=[50, 50, 50, 50]), Constraints(calls=calls))
    dearer = _row(one=[2, 2, 2, 2], portable=[50, 50, 50, 50])
    plan = solve(dearer, Constraints(calls=calls))
    anew = solve(dearer, Constraints(calls=_never("a", "d")))
    assert plan.total_ns == anew.total_ns and plan.states < anew.states
