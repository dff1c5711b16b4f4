"""What-if: answers in planner terms, each checked against plans solved by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.advice import what_if
from orchestrator.advice.what_if import Module, Questions, Rejected, advise
from orchestrator.backends import resolve_backends
from orchestrator.flow import plan_only
from orchestrator.options import PlanOptions
from orchestrator.planner import (
    UNKNOWN,
    Atom,
    Backend,
    Constraints,
    CostGraph,
    Exclude,
    Flow,
    Layout,
    Plan,
    Price,
    Tensor,
    Transfer,
    solve,
)
from orchestrator.planning.choice import Choice
from orchestrator.report.pricing import atom_prices, conversions, describe_plan

FAST, SLOW, KERNELS = "fast", "slow", "kernels"
BACKENDS = (Backend(FAST, 10.0), Backend(SLOW, 10.0), Backend(KERNELS, is_delegate=False))


def chain(costs: dict[str, dict[str, float]]) -> CostGraph:
    """Atoms in a row; by atom id, its costs by backend."""
    names = list(costs)
    tensors = [
        Tensor(f"t{name}", name, tuple(names[index + 1 : index + 2]), 4, index == len(names) - 1)
        for index, name in enumerate(names)
    ]
    atoms = [Atom(name, each) for name, each in costs.items()]
    return CostGraph(BACKENDS, atoms, tensors)


@pytest.fixture
def graph() -> CostGraph:
    """The op b runs on kernels only, which splits the fast delegate's work in two."""
    return chain(
        {
            "a": {FAST: 50.0, SLOW: 90.0, KERNELS: 1000.0},
            "b": {KERNELS: 300.0},
            "c": {FAST: 50.0, SLOW: 40.0, KERNELS: 1000.0},
        }
    )


def answer(graph: CostGraph, plan: Plan, kind: str, **questions: object) -> dict[str, float]:
    found = advise(graph, plan, Questions(**questions))  # type: ignore[arg-type]
    return {item.text: item.gain_ns for item in found if item.kind == kind}


def test_taking_a_rejected_op_gains_its_time_and_the_calls_it_saves(graph: CostGraph) -> None:
    plan = solve(graph)
    assert plan.total_ns == 10 + 50 + 300 + 10 + 40
    rejected = Rejected(FAST, "op", "no rule", "write one", {"b": 30.0})
    (found,) = [
        item for item in advise(graph, plan, Questions((rejected,))) if item.kind == "support"
    ]
    assert found.gain_ns == plan.total_ns - (10 + 50 + 30 + 50)
    assert (found.backend, found.atoms, found.remedy) == (FAST, ("b",), "write one")
    assert found.assumed
    assert "no rule" in found.text


def test_ties_gain_nothing() -> None:
    """The plan of one call costs 20 ns more, which nobody can tell from the cheapest one."""
    tied = {FAST: Price(100.0), SLOW: Price(130.0, 40.0)}
    graph = chain({"a": {SLOW: 50.0, KERNELS: 1000.0}, "b": tied, "c": {SLOW: 50.0}})
    plan = solve(graph)
    assert set(plan.assignment.values()) == {SLOW}
    cheapest = solve(graph.without_spreads())
    assert cheapest.total_ns < plan.total_ns
    rejected = Rejected(FAST, "op", "no rule", "write one", {"c": 60.0})
    assert not answer(graph, plan, "support", rejected=(rejected,))


def test_what_would_gain_nothing_is_not_suggested(graph: CostGraph) -> None:
    plan = solve(graph)
    assert not answer(
        graph, plan, "support", rejected=(Rejected(FAST, "op", "r", "", {"b": 400.0}),)
    )


def test_a_pin_costs_the_difference(graph: CostGraph) -> None:
    plan = solve(graph)
    found = answer(graph, plan, "pin", modules=(Module("tail", ("c",)),))
    assert found == {"pinning tail to fast": -10.0}


def test_what_leads_to_the_same_plan_is_told_once(graph: CostGraph) -> None:
    modules = (Module("tail", ("c",)), Module("outer", ("a", "c")))
    found = answer(graph, solve(graph), "pin", modules=modules)
    assert found == {"pinning tail to fast": -10.0, "pinning outer to slow": -40.0}


def test_a_module_that_a_backend_cannot_take_whole_is_no_question(graph: CostGraph) -> None:
    plan = solve(graph)
    assert not answer(graph, plan, "pin", modules=(Module("all", ("b", "c")),))


def test_fewer_partitions_have_a_price(graph: CostGraph) -> None:
    plan = solve(graph)
    found = answer(graph, plan, "partitions")
    assert found == {"at most 1 delegate call instead of 2": plan.total_ns - (1000 + 300 + 10 + 40)}


def test_what_is_within_the_spread_is_called_a_tie(graph: CostGraph) -> None:
    asked = Questions(modules=(Module("tail", ("c",)),))
    for spread, tie in ((5.0, False), (20.0, True)):
        changed = graph.with_costs({"c": {FAST: Price(50.0, spread)}})
        (found,) = [item for item in advise(changed, solve(changed), asked) if item.kind == "pin"]
        assert (found.gain_ns, found.tie) == (-10.0, tie)


def test_answers_are_ranked_by_gain(graph: CostGraph) -> None:
    plan = solve(graph)
    asked = Questions((Rejected(FAST, "op", "r", "", {"b": 30.0}),), (Module("tail", ("c",)),))
    gains = [item.gain_ns for item in advise(graph, plan, asked)]
    assert len(gains) == 3
    assert gains == sorted(gains, reverse=True)


def test_a_plan_on_one_backend_is_asked_about_the_others() -> None:
    """Tuning may take a backend alone; advice is not bound by that."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1).relu() * x

    found = plan_only(
        torch.export.export(Net().eval(), (torch.ones(8, 64),)),
        resolve_backends(["ggml", "xnnpack"]),
        PlanOptions(tune="off", threads=1),
        Choice.of_one("xnnpack"),
    )
    assert not found.planned.constraints.excludes
    assert "ggml" not in found.plan.assignment.values()


def test_a_pin_that_is_suggested_can_be_followed() -> None:
    """A pattern binds more than the modules it was read off: "layers.*.*" is "layers.1.act" too."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Hardsigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.act(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            convs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
            self.layers = nn.Sequential(convs, Gate())
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layers(x))

    program = torch.export.export(Net().eval(), (torch.ones(1, 3, 12, 12),))
    backends = resolve_backends(["ggml", "xnnpack"])
    found = plan_only(program, backends, PlanOptions(tune="off", threads=1))
    bound = {module.path: module.atoms for module in found.questions.modules}
    assert any("hardsigmoid" in atom for atom in bound["layers.*.*"])
    described = found.with_advice().plan
    assert described is not None
    pins = [each.text.removeprefix("pinning ") for each in described.advice if each.kind == "pin"]
    assert pins
    for pin in pins:
        path, _, backend = pin.partition(" to ")
        options = PlanOptions(tune="off", threads=1, pins={path: backend})
        assert backend in plan_only(program, backends, options).plan.assignment.values()


def test_no_more_is_asked_than_can_be_answered_in_seconds(
    graph: CostGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = solve(graph)
    rejected = tuple(
        Rejected(FAST, f"op{number}", "", "", {"b": float(number)}) for number in range(1, 5)
    )
    asked = []

    def counted(*args: Any, **kwargs: Any) -> Plan:
        asked.append(solve(*args, **kwargs))
        return asked[-1]

    monkeypatch.setattr(what_if, "solve", counted)
    advise(graph, plan, Questions(rejected))
    unlimited = len(asked)
    assert unlimited > 4
    asked.clear()
    monkeypatch.setattr(what_if, "_MOST_STATES", 2 * plan.states)
    advise(graph, plan, Questions(rejected))
    assert 0 < len(asked) < unlimited
    assert sum(found.states for found in asked) <= 3 * plan.states


def test_few_questions_are_asked_about_a_large_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no search is needed, greedy plans and their bound take their time as well."""
    asked: list[int] = []

    def counting(graph: CostGraph, *arguments: Any, **options: Any) -> Plan:
        asked.append(len(graph.atoms))
        return solve(graph, *arguments, **options)

    monkeypatch.setattr(what_if, "solve", counting)
    for count, most in ((40, 9), (2_000, 2)):
        names = [f"a{number}" for number in range(count)]
        graph = chain({name: {FAST: 5.0, KERNELS: 1000.0} for name in names})
        groups = tuple(
            Rejected(SLOW, name, "not here", "", {name: 1.0}) for name in (*names[:12], names[-1])
        )
        asked.clear()
        advise(graph, solve(graph), Questions(rejected=groups))
        assert asked == [count] * most


def test_plans_without_prices_get_no_advice() -> None:
    graph = chain({"a": {FAST: 1.0}}).with_costs({"a": {FAST: UNKNOWN}})
    plan = solve(graph, method="greedy")
    assert advise(graph, plan, Questions((Rejected(FAST, "op", "r", "", {"a": 1.0}),))) == ()


def test_the_plans_own_constraints_stay(graph: CostGraph) -> None:
    base = Constraints(excludes=(Exclude("slow", ("a", "c"), (SLOW,)),))
    plan = solve(graph, base)
    asked = Questions(modules=(Module("tail", ("c",)),))
    assert [item.kind for item in advise(graph, plan, asked, base)] == ["partitions"]
    assert "pin" in [item.kind for item in advise(graph, solve(graph), asked)]


class TestPrices:
    def test_alternatives_are_priced_like_the_plan(self, graph: CostGraph) -> None:
        described = describe_plan(solve(graph), graph)
        assert described.predicted_ns == 410.0
        found = {other.name: other.predicted_ns for other in described.alternatives}
        assert found == {
            "fast alone": 10 + 50 + 300 + 10 + 50,
            "slow alone": 10 + 90 + 300 + 10 + 40,
            "no delegate": 2300,
            "greedy: fast, slow": 10 + 50 + 300 + 10 + 50,
            "greedy: slow, fast": 10 + 90 + 300 + 10 + 40,
        }

    def test_an_alternative_that_cannot_be_made_says_why(self) -> None:
        graph = chain({"a": {FAST: 1.0}, "b": {SLOW: 1.0}})
        problems = {
            other.name: other.problem for other in describe_plan(solve(graph), graph).alternatives
        }
        assert problems["fast alone"] == problems["slow alone"]
        assert problems["slow alone"].startswith("no kernel here for 1 op of this graph")
        assert problems["no delegate"].startswith("no kernel here for 2 ops")
        assert problems["greedy: fast, slow"] == ""

    def test_unknown_costs_are_not_taken_for_zero(self) -> None:
        graph = chain({"a": {FAST: 5.0, SLOW: 7.0}, "b": {FAST: 1.0}})
        graph = graph.with_costs({"a": {FAST: UNKNOWN}})
        plan = solve(graph, method="greedy")
        described = describe_plan(plan, graph)
        assert described.unknown == ("a",)
        assert described.predicted_ns is None
        assert atom_prices(plan, graph, "a") == ({FAST: None, SLOW: 7.0}, None)

    def test_layout_changes_are_named_where_they_happen(self) -> None:
        both = (Layout.CONTIGUOUS, Layout.CHANNELS_LAST)
        backends = [Backend(FAST, 1.0, layouts=both), Backend(SLOW, 1.0, layouts=both)]
        last = Flow(Layout.CHANNELS_LAST, Layout.CHANNELS_LAST)
        moved = {name: Transfer(1.0, 1.0, 5.0) for name in (FAST, SLOW)}
        tensors = [
            Tensor("x", None, ("a",), 4, layouts=both, transfers=moved),
            Tensor("y", "a", ("b",), 4, layouts=both, transfers=moved),
            Tensor("z", "b", (), 4, is_output=True, layouts=both, transfers=moved),
        ]
        atoms = [Atom("a", {FAST: {last: 1.0}}), Atom("b", {SLOW: {last: 1.0}})]
        graph = CostGraph(backends, atoms, tensors)
        plan = solve(graph)
        assert conversions(plan, graph, 0) == ("x",)
        assert conversions(plan, graph, 1) == ("z",)

    def test_excluding_a_backend_is_what_the_single_plan_says(self, graph: CostGraph) -> None:
        """For a chain, the best plan without the other delegate is the greedy one alone."""
        exclude = Exclude("slow", ("a", "c"), (SLOW,))
        best = solve(graph, Constraints(excludes=(exclude,)))
        alone = {o.name: o.predicted_ns for o in describe_plan(solve(graph), graph).alternatives}
        assert alone["fast alone"] == best.total_ns
