"""Merging nodes into groups."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Graph, Node

from orchestrator.graph.contraction import Contraction


def _diamond() -> list[Node]:
    """a -> b -> d, a -> c -> d."""
    graph = Graph()
    x = graph.placeholder("x")
    a = graph.call_function(torch.relu, (x,))
    b = graph.call_function(torch.relu, (a,))
    c = graph.call_function(torch.relu, (a,))
    d = graph.call_function(torch.add, (b, c))
    return [a, b, c, d]


def test_neighbours_can_be_merged() -> None:
    a, b, c, d = _diamond()
    assert Contraction([a, b, c, d]).can_merge([a, b])


def test_a_group_that_a_path_leaves_and_enters_again_cannot_be_merged() -> None:
    a, b, c, d = _diamond()
    assert not Contraction([a, b, c, d]).can_merge([a, d])
    assert not Contraction([a, b, c, d]).can_merge([a, b, d])


def test_a_cycle_through_an_earlier_merge_is_seen() -> None:
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    a, b = (graph.call_function(torch.relu, (source,)) for source in (x, y))
    c, d = (graph.call_function(torch.neg, (source,)) for source in (a, b))
    contraction = Contraction([a, b, c, d])
    assert contraction.can_merge([a, d])
    contraction.merge([a, d])
    # a feeds c and b feeds d: with {a, d} one unit, {b, c} would feed it and read from it.
    assert not contraction.can_merge([b, c])


def test_independent_nodes_can_be_merged() -> None:
    a, b, c, d = _diamond()
    contraction = Contraction([a, b, c, d])
    contraction.merge([b, c])
    assert contraction.groups_in_topological_order() == [[a], [b, c], [d]]


def test_groups_come_after_what_they_read_from() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    a = graph.call_function(torch.relu, (x,))
    late = graph.call_function(torch.neg, (x,))
    b = graph.call_function(torch.add, (a, late))
    contraction = Contraction([a, late, b])
    contraction.merge([a, b])
    assert contraction.groups_in_topological_order() == [[late], [a, b]]


def test_a_merge_that_makes_a_cycle_is_an_error_when_ordering() -> None:
    a, b, c, d = _diamond()
    contraction = Contraction([a, b, c, d])
    contraction.merge([a, d])
    with pytest.raises(ValueError, match="depend on each other"):
        contraction.groups_in_topological_order()
