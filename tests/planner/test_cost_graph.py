import math

import pytest

from orchestrator.planner import (
    INFEASIBLE,
    UNKNOWN,
    Atom,
    Backend,
    Constant,
    CostGraph,
    InvalidGraphError,
    Tensor,
    Transfer,
)
from tests.planner.harness import BOTH, CHANNELS_LAST, CONTIGUOUS, PORTABLE, delegates, graph_of


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_an_impossible_cost_is_refused_and_names_atom_and_backend(value: float) -> None:
    with pytest.raises(InvalidGraphError, match=r"atom 'conv' on backend 'ggml' is .* ns"):
        graph_of(delegates("ggml"), {"conv": {"ggml": value}})


def test_an_impossible_transfer_is_refused_and_names_the_tensor() -> None:
    with pytest.raises(InvalidGraphError, match="write_ns of tensor 'a_out' on backend 'ggml'"):
        graph_of(
            delegates("ggml"),
            {"a": {"ggml": 1.0}, "b": {"ggml": 1.0}},
            [("a", "b")],
            transfer=Transfer(write_ns=-3.0),
        )


def test_an_impossible_call_overhead_is_refused() -> None:
    with pytest.raises(InvalidGraphError, match="call overhead of backend 'ggml'"):
        CostGraph([Backend("ggml", math.nan)], [])


def test_kernels_with_a_call_overhead_are_refused() -> None:
    with pytest.raises(InvalidGraphError, match="'portable' makes no calls"):
        CostGraph([Backend("portable", 1.0, is_delegate=False)], [])


def test_a_cycle_is_refused_and_named() -> None:
    one = {"ggml": 1.0}
    with pytest.raises(InvalidGraphError, match="'b' -> 'c' -> 'b'"):
        graph_of(
            delegates("ggml"),
            {"a": one, "b": one, "c": one},
            [("a", "b"), ("b", "c"), ("c", "b")],
        )


def test_unknown_ids_are_refused_and_named() -> None:
    atom = Atom("a", {"ggml": 1.0})
    with pytest.raises(InvalidGraphError, match="tensor 't' names the atom 'b'"):
        CostGraph(delegates("ggml"), [atom], [Tensor("t", "a", ("b",))])
    with pytest.raises(InvalidGraphError, match="constant 'w' names the atom 'b'"):
        CostGraph(delegates("ggml"), [atom], constants=[Constant("w", 4, ("a", "b"))])
    with pytest.raises(InvalidGraphError, match="atom 'a' has a cost for 'ggml'"):
        CostGraph(delegates("xnnpack"), [atom])
    with pytest.raises(InvalidGraphError, match="tensor 't' has a transfer for 'npu'"):
        CostGraph(delegates("ggml"), [atom], [Tensor("t", "a", transfers={"npu": Transfer()})])


def test_two_atoms_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidGraphError, match="two atoms are called 'a'"):
        CostGraph(delegates("ggml"), [Atom("a", {}), Atom("a", {})])


def test_a_layout_in_memory_must_be_one_the_tensor_can_have() -> None:
    tensor = Tensor("t", "a", memory_layouts=(CHANNELS_LAST,))
    with pytest.raises(InvalidGraphError, match="'t' allows channels_last in memory"):
        CostGraph(delegates("ggml"), [Atom("a", {"ggml": 1.0})], [tensor])


def test_unknown_is_not_infeasible() -> None:
    graph = graph_of(
        [*delegates("ggml"), PORTABLE], {"a": {"ggml": UNKNOWN, "portable": INFEASIBLE}}
    )
    assert graph.capable("a", "ggml")
    assert not graph.capable("a", "portable")


def test_what_the_caller_gives_or_gets_is_contiguous_unless_said_otherwise() -> None:
    assert Tensor("t", None, layouts=BOTH).allowed_in_memory() == (CONTIGUOUS,)
    assert Tensor("t", "a", is_output=True, layouts=BOTH).allowed_in_memory() == (CONTIGUOUS,)
    assert Tensor("t", "a", layouts=BOTH).allowed_in_memory() == BOTH
    fixed = Tensor("t", None, layouts=BOTH, memory_layouts=(CHANNELS_LAST,))
    assert fixed.allowed_in_memory() == (CHANNELS_LAST,)


def test_layouts_that_no_tensor_of_an_atom_has_make_no_further_option() -> None:
    backend = Backend("ggml", layouts=BOTH)
    flat = CostGraph([backend], [Atom("a", {"ggml": 1.0})], [Tensor("t", "a")])
    image = CostGraph([backend], [Atom("a", {"ggml": 1.0})], [Tensor("t", "a", layouts=BOTH)])
    assert len(flat.options[0]) == 1
    assert len(image.options[0]) == 2


def test_changed_costs_leave_the_first_graph_as_it_was() -> None:
    graph = graph_of(delegates("ggml"), {"a": {"ggml": 5.0}})
    changed = graph.with_costs({"a": {"ggml": 2.0}})
    assert changed.options[0][0].price is not None
    assert changed.options[0][0].price.ns == 2.0
    assert graph.atoms[0].costs == {"ggml": 5.0}
    with pytest.raises(InvalidGraphError, match="'b'"):
        graph.with_costs({"b": {"ggml": 2.0}})
