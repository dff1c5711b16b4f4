"""Where atoms go in a drawing."""

from __future__ import annotations

import random

from orchestrator.report.data import AtomReport, EdgeReport, MethodReport
from orchestrator.report.layout import lay_out


def method(edges: dict[str, str], extra: str = "") -> MethodReport:
    """A method of atoms with one letter each; edges lead from each key to every letter of it."""
    names = dict.fromkeys("".join([*edges, *edges.values(), *extra]))
    return MethodReport(
        "m",
        atoms=tuple(AtomReport(name, (name,), ("aten.add.Tensor",), "b", 0) for name in names),
        edges=tuple(EdgeReport(name, name, tuple(users)) for name, users in edges.items()),
    )


def test_a_chain_is_one_column() -> None:
    found = lay_out(method({"a": "b", "b": "c"}))
    assert found.places == {"a": (0, 0.0), "b": (1, 0.0), "c": (2, 0.0)}
    assert (found.layers, found.columns) == (3, 1)


def test_an_atom_stands_below_its_lowest_producer() -> None:
    found = lay_out(method({"a": "bd", "b": "c", "c": "d"}))
    assert [found.places[name][0] for name in "abcd"] == [0, 1, 2, 3]


def test_a_source_stands_right_above_its_reader() -> None:
    found = lay_out(method({"a": "b", "b": "c", "x": "c"}))
    assert found.places["x"][0] == 1


def test_branches_do_not_cross_where_they_need_not() -> None:
    found = lay_out(method({"s": "ab", "a": "c", "b": "d", "c": "t", "d": "t"}))
    left = [name for name in "abcd" if found.places[name][1] < 0.5]
    assert sorted(left) in (["a", "c"], ["b", "d"])


def test_atoms_without_edges_and_no_atoms_at_all_have_a_place() -> None:
    assert lay_out(method({}, "xy")).columns == 2
    empty = lay_out(MethodReport("m"))
    assert (empty.places, empty.layers, empty.columns) == ({}, 0, 0)


def test_large_graphs_point_down_and_overlap_nowhere() -> None:
    """1,500 atoms, some with many readers; edges from the caller are not drawn."""
    rng = random.Random(0)
    names = [f"n{index}" for index in range(1500)]
    edges = [EdgeReport("x", "", (names[0],))]
    for index, name in enumerate(names[:-1]):
        users = {
            names[index + 1],
            *rng.sample(names[index + 1 : index + 30], k=min(2, 1498 - index)),
        }
        edges.append(EdgeReport(name, name, tuple(users)))
    atoms = tuple(AtomReport(name, (name,), ("aten.add.Tensor",), "b", 0) for name in names)
    found = lay_out(MethodReport("m", atoms=atoms, edges=tuple(edges)))
    assert len(set(found.places.values())) == 1500
    for edge in edges[1:]:
        for user in edge.consumers:
            assert found.places[edge.producer][0] < found.places[user][0]


def test_atoms_on_a_cycle_have_places_in_the_grid() -> None:
    found = lay_out(method({"s": "a", "a": "b", "b": "a", "c": "c", "x": "y", "y": "z"}))
    assert {name: found.places[name][0] for name in "xyz"} == {"x": 0, "y": 1, "z": 2}
    assert {found.places[name][0] for name in "sabc"} == {0}
    assert len(set(found.places.values())) == len(found.places)
