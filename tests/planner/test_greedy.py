from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planner import (
    UNKNOWN,
    CostGraph,
    IllegalPlanError,
    InfeasibleAtomError,
    Segment,
    check_segments,
    greedy,
    is_convex,
    split_into_segments,
)
from tests.planner.harness import PORTABLE, delegates, graph_of
from tests.planner.random_graphs import cost_graphs

GX = delegates("ggml", "xnnpack")
ANY = {"ggml": UNKNOWN, "xnnpack": UNKNOWN, "portable": UNKNOWN}
GGML = {"ggml": UNKNOWN}
XNNPACK = {"xnnpack": UNKNOWN}
KERNEL = {"portable": UNKNOWN}


def _parts(segments: object) -> list[tuple[str, tuple[str, ...]]]:
    assert isinstance(segments, list | tuple)
    return [(segment.backend, segment.atoms) for segment in segments]


def test_the_first_backend_that_can_takes_the_atom() -> None:
    costs = {"a": ANY, "b": XNNPACK, "c": ANY}
    graph = graph_of([*GX, PORTABLE], costs, [("a", "b"), ("b", "c")])
    plan = greedy(graph)
    assert _parts(plan.segments) == [("ggml", ("a",)), ("xnnpack", ("b",)), ("ggml", ("c",))]
    assert plan.cost.unknown == ("a", "b", "c")
    assert _parts(greedy(graph, ["xnnpack", "ggml"]).segments) == [("xnnpack", ("a", "b", "c"))]


def test_two_partitions_that_feed_each_other_are_cut() -> None:
    # a1 -> b1 and b2 -> a2: with {a1, a2} and {b1, b2} the partitions would wait for each other.
    costs = {"a1": GGML, "b1": XNNPACK, "b2": XNNPACK, "a2": GGML}
    graph = graph_of(GX, costs, [("a1", "b1"), ("b2", "a2")])
    plan = greedy(graph)
    assert len(plan.segments) == 3
    check_segments(graph, plan.segments)
    with pytest.raises(IllegalPlanError, match="cycle"):
        check_segments(graph, [Segment("ggml", ("a1", "a2")), Segment("xnnpack", ("b1", "b2"))])


def test_a_segment_around_a_foreign_atom_is_not_convex() -> None:
    graph = graph_of(GX, {"a": GGML, "b": XNNPACK, "c": GGML}, [("a", "b"), ("b", "c"), ("a", "c")])
    assert not is_convex(graph, {"a", "c"})
    assert is_convex(graph, {"a", "b"})


def test_kernels_between_do_not_stop_a_delegate_from_gathering_what_does_not_depend_on_them() -> (
    None
):
    costs = {"a": GGML, "k": KERNEL, "b": GGML, "c": GGML}
    graph = graph_of([*GX, PORTABLE], costs, [("a", "k"), ("a", "b"), ("b", "c"), ("k", "c")])
    assert _parts(greedy(graph).segments) == [
        ("ggml", ("a", "b")),
        ("portable", ("k",)),
        ("ggml", ("c",)),
    ]


def test_kernels_need_not_be_convex() -> None:
    graph = graph_of([*GX, PORTABLE], {"k1": KERNEL, "a": GGML, "k2": KERNEL})
    order = [Segment("portable", ("k1", "k2"), is_delegate=False), Segment("ggml", ("a",))]
    check_segments(graph, order)


def test_segments_out_of_order_are_refused() -> None:
    graph = graph_of(GX, {"a": GGML, "b": XNNPACK}, [("a", "b")])
    with pytest.raises(IllegalPlanError, match="'b' runs in an earlier segment than its 'a'"):
        check_segments(graph, [Segment("xnnpack", ("b",)), Segment("ggml", ("a",))])


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment("ggml", ("a",))], "no segment runs the atom 'b'"),
        ([Segment("ggml", ("a",)), Segment("ggml", ("a", "b"))], "'a' is in segments 0 and 1"),
        ([Segment("ggml", ("a", "b", "z"))], "'z', which is not in the graph"),
    ],
)
def test_segments_that_do_not_cover_the_graph_once_are_refused(
    segments: list[Segment], message: str
) -> None:
    graph = graph_of(GX, {"a": GGML, "b": GGML}, [("a", "b")])
    with pytest.raises(IllegalPlanError, match=message):
        check_segments(graph, segments)


def test_a_segment_on_a_backend_that_cannot_run_its_atom_is_refused() -> None:
    graph = graph_of(GX, {"a": GGML})
    with pytest.raises(InfeasibleAtomError, match="'a' is in a segment for 'xnnpack'"):
        check_segments(graph, [Segment("xnnpack", ("a",))])
    with pytest.raises(InfeasibleAtomError, match=r"'a' is assigned to 'xnnpack'.*\['ggml'\]"):
        split_into_segments(graph, {"a": "xnnpack"})


def test_an_atom_that_nothing_can_run_is_an_error_that_names_it() -> None:
    with pytest.raises(InfeasibleAtomError, match="atom 'b'"):
        greedy(graph_of(GX, {"a": GGML, "b": XNNPACK}, [("a", "b")]), ["ggml"])


def test_a_trivial_segment_joins_its_neighbours() -> None:
    costs = {"a": XNNPACK, "view": ANY, "b": XNNPACK}
    graph = graph_of([*GX, PORTABLE], costs, [("a", "view"), ("view", "b")], trivial=["view"])
    assert _parts(greedy(graph).segments) == [("xnnpack", ("a", "view", "b"))]
    assert len(greedy(graph, drop_trivial=False).segments) == 3


def test_a_trivial_segment_between_kernels_becomes_a_kernel() -> None:
    costs = {"k1": KERNEL, "view": ANY, "k2": KERNEL}
    graph = graph_of([*GX, PORTABLE], costs, [("k1", "view"), ("view", "k2")], trivial=["view"])
    assert _parts(greedy(graph).segments) == [("portable", ("k1", "view", "k2"))]


def test_a_trivial_segment_that_only_its_backend_can_run_stays() -> None:
    graph = graph_of(
        [*GX, PORTABLE], {"k": KERNEL, "view": GGML}, [("k", "view")], trivial=["view"]
    )
    assert _parts(greedy(graph).segments) == [("portable", ("k",)), ("ggml", ("view",))]


def test_an_empty_graph_has_an_empty_plan() -> None:
    plan = greedy(CostGraph(GX, []))
    assert plan.segments == ()
    assert plan.total_ns == 0.0


def test_separate_parts_share_calls() -> None:
    costs = {"a1": GGML, "b1": XNNPACK, "a2": GGML, "b2": XNNPACK}
    graph = graph_of(GX, costs, [("a1", "b1"), ("a2", "b2")])
    assert _parts(greedy(graph).segments) == [("ggml", ("a1", "a2")), ("xnnpack", ("b1", "b2"))]


@given(cost_graphs(), st.integers())
def test_any_assignment_is_split_into_legal_segments(graph: CostGraph, seed: int) -> None:
    random = Random(seed)
    names = [backend.name for backend in graph.backends]
    assignment = {
        atom.id: random.choice([name for name in names if graph.capable(atom.id, name)])
        for atom in graph.atoms
    }
    segments = split_into_segments(graph, assignment)
    check_segments(graph, segments)
    assert segments == split_into_segments(graph, assignment)
    assert {atom: part.backend for part in segments for atom in part.atoms} == assignment
