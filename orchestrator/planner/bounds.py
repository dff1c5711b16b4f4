"""Lower bounds on the cost of any plan of a graph.

`min_cut_bound` is for two backends: without call overheads and layouts, the cheapest assignment is
a minimum s-t cut, with one auxiliary node per tensor and direction so that a tensor is charged once
(as in Stone's assignment of modules to two processors). What is left out only makes plans dearer.
Call overheads are added along one path: segments are convex, so each change of backend on it opens
another segment.

`lower_bound` is for any number of backends: the dual bound of `potentials` over the whole graph,
and the minimum cut as well where there are two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import networkx as nx

from .blocks import BlockBuilder
from .cost_graph import CostGraph, Option
from .potentials import Potentials, longest_path
from .problem import Problem
from .search import START

_SOURCE = "source"
_SINK = "sink"


def lower_bound(
    graph: CostGraph, allowed: Sequence[Sequence[Option]] | None = None, *, use_cut: bool = True
) -> float:
    """A cost in ns below which no plan of the graph can be.

    allowed: options by atom index, from constraints. use_cut: for two backends, also find the
    minimum cut, which takes long for thousands of atoms.

    Raises InfeasibleAtomError or UnknownCostError for an atom that cannot be priced.
    """
    problem = Problem(graph, allowed)
    bound = problem.in_ns(_dual_bound(problem))
    if use_cut and len(graph.backends) == 2:
        bound = max(bound, min_cut_bound(graph, allowed))
    return bound


def _dual_bound(problem: Problem) -> int:
    if not problem.atoms:
        return 0
    block = BlockBuilder(problem).build(0, len(problem.atoms), [])
    potentials = Potentials(problem, block)
    return potentials.of_atoms() + potentials.at(potentials.crossing(0))(*START[:3])


def min_cut_bound(graph: CostGraph, allowed: Sequence[Sequence[Option]] | None = None) -> float:
    """The bound for a graph with two backends, in ns.

    Raises ValueError for another number of backends, InfeasibleAtomError or UnknownCostError for
    an atom that cannot be priced.
    """
    if len(graph.backends) != 2:
        raise ValueError(f"a minimum s-t cut is for 2 backends, not {len(graph.backends)}.")
    problem = Problem(graph, allowed)
    if not problem.atoms:
        return 0.0
    network = _Network(problem)
    value, _ = nx.minimum_cut(network.flow, _SOURCE, _SINK)
    return problem.in_ns(value)


class _Network:
    """Atoms on the source's side run on backend 0, those on the sink's side on backend 1."""

    def __init__(self, problem: Problem) -> None:
        self.flow = nx.DiGraph()
        self.flow.add_nodes_from([_SOURCE, _SINK])
        self._problem = problem
        for atom, ways in enumerate(problem.ways):
            for backend in (0, 1):
                costs = [way.cost for way in ways if way.backend == backend]
                self._charge(atom, backend, min(costs) if costs else None)
        for tensor in range(len(problem.classes)):
            self._add_tensor(tensor)
        self._add_overheads()

    def _charge(self, node: object, backend: int, cost: int | None) -> None:
        """Make a node cost something on a backend; None for infinitely much."""
        if backend == 0:
            self._connect(node, _SINK, cost)
        else:
            self._connect(_SOURCE, node, cost)

    def _connect(self, tail: object, head: object, cost: int | None) -> None:
        if cost is None:
            self.flow.add_edge(tail, head)
            self.flow[tail][head].pop("capacity", None)  # none means infinite
        elif self.flow.has_edge(tail, head):
            if "capacity" in self.flow[tail][head]:
                self.flow[tail][head]["capacity"] += cost
        else:
            self.flow.add_edge(tail, head, capacity=cost)

    def _add_tensor(self, tensor: int) -> None:
        problem = self._problem
        kind = problem.classes[tensor]
        maker = problem.producer[tensor]
        is_output = maker is not None and problem.graph.tensors[tensor].is_output
        for backend in (0, 1):
            written = 0
            if maker is not None and is_output:
                written = min(self._writes(tensor, backend), default=0)
                self._charge(maker, backend, written)
            users = problem.consumers[tensor]
            if not users:
                continue
            if maker is None:
                # The reader's side pays once, through one node that all users drag along.
                reader = ("read", tensor, backend)
                self._charge(reader, backend, kind.least_read(backend))
                self._drag(users, reader, backend)
            else:
                # Users on the other side than the maker.
                other = 1 - backend
                cost = kind.least_crossing(backend, other) - written
                reader = ("cross", tensor, backend)
                self._drag(users, reader, other)
                tail, head = (maker, reader) if backend == 0 else (reader, maker)
                self._connect(tail, head, max(0, cost))

    def _writes(self, tensor: int, backend: int) -> list[int]:
        maker = self._problem.producer[tensor]
        assert maker is not None
        kind = self._problem.classes[tensor]
        ways = self._problem.ways[maker]
        return [kind.least_write(backend, way.writes) for way in ways if way.backend == backend]

    def _drag(self, users: Sequence[int], node: object, backend: int) -> None:
        """Put a node on a backend's side as soon as one of the users is."""
        for user in users:
            if backend == 0:
                self._connect(user, node, None)
            else:
                self._connect(node, user, None)

    def _add_overheads(self) -> None:
        problem = self._problem
        path = longest_path(problem.succs)
        for backend in (0, 1):
            self._charge(path[0], backend, problem.overhead[backend])
        for before, atom in itertools.pairwise(path):
            self._connect(before, atom, problem.overhead[1])
            self._connect(atom, before, problem.overhead[0])
