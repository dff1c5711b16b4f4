"""A lower bound on what remains to be paid, by ideal and state: what makes the search short.

Crossing costs are split between pairs of atoms: each consumer of a tensor bears its share of what
the tensor costs if the two run apart. What is left is a graph with a choice (a way) at each node
and costs at nodes and edges. From the last atom to the first, each node's cost-to-go is passed on
to its in-edges in equal parts, and each edge hands to its producer the least over its consumer's
choices (dual block-coordinate ascent, as in TRW-S and MPLP; exact on chains). The sum of the least
that every node and edge then costs is a lower bound, and it holds as well with some atoms done:
edges from them are then priced with what the state tells about the tensor.

Along one path through the block, changing the backend also costs a call overhead: a segment is
convex, so that each change on the path opens another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .blocks import Block, Use
from .problem import Problem, Way
from .tensors import SLOT_MASK

_ROUNDS = 4


class _Costs(dict[int, int]):
    """What an edge out of an ideal costs at least, by keys of states; found out when asked for."""

    def __init__(self, find: Callable[[int], int]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, key: int) -> int:
        cost = self[key] = self._find(key)
        return cost


#: Edges that lead out of an ideal: where the tensor's code is, its bits, the consumer, the costs.
Crossing = tuple[tuple[int, int, int, _Costs], ...]


class Edge:
    """A tensor and one of its consumers, or two neighbours on the path if there is no tensor.

    costs: by ways of the producer and of the consumer, what the edge costs; without rows if the
    producer is not in the block. to_producer, to_consumer: by way, what the edge has handed over.
    """

    def __init__(
        self,
        use: Use | None,
        producer: int | None,
        consumer: int,
        costs: list[list[int]],
        ways: int,
    ) -> None:
        self.use = use
        self.producer = producer
        self.consumer = consumer
        self.costs = costs
        self.to_producer = [0] * len(costs)
        self.to_consumer = [0] * ways

    def pull_to_producer(self) -> list[int]:
        """Hand the producer all that is left, by its ways."""
        self.to_producer = [
            min(cost - given for cost, given in zip(row, self.to_consumer, strict=True))
            for row in self.costs
        ]
        return self.to_producer

    def pull_to_consumer(self) -> list[int]:
        """Hand the consumer all that is left, by its ways."""
        if self.costs:
            rows = [
                [cost - given for cost in row]
                for row, given in zip(self.costs, self.to_producer, strict=True)
            ]
            self.to_consumer = [min(column) for column in zip(*rows, strict=True)]
        else:
            self.to_consumer = [0] * len(self.to_consumer)
        return self.to_consumer


class Potentials:
    """Bounds for one block. Costs are those of the problem.

    surcharge: by backend, what ending the block there costs on top; for blocks with a last atom.
    """

    def __init__(
        self, problem: Problem, block: Block, surcharge: Sequence[int] | None = None
    ) -> None:
        self._overhead = problem.overhead
        self._ways: list[list[Way]] = [
            [way for _, way in sorted(pair for row in rows.values() for pair in row)]
            for rows in block.ways
        ]
        self._costs = [self._own_costs(block, a, surcharge) for a in range(len(block.atoms))]
        self._into: list[list[Edge]] = [[] for _ in block.atoms]
        self._from: list[list[Edge]] = [[] for _ in block.atoms]
        makers = {
            use.shift: atom for atom in range(len(block.atoms)) for use in block.outputs[atom]
        }
        for atom in range(len(block.atoms)):
            for use in block.inputs[atom]:
                self._link(use, makers.get(use.shift), atom)
        # A floating atom need not open the segment that it changes to.
        path = longest_path(
            [
                [] if a in block.floating else [s for s in row if s not in block.floating]
                for a, row in enumerate(block.succs)
            ]
        )
        path = [atom for atom in path if atom not in block.floating]
        for before, atom in zip([None, *path], path, strict=False):
            self._link(None, before, atom)
        self._least = [0 for _ in block.atoms]
        self._crossing_costs: dict[Edge, _Costs] = {}
        for number in range(_ROUNDS):
            if number:
                for atom in range(len(block.atoms)):
                    self._spread(atom, forward=True)
            for atom in reversed(range(len(block.atoms))):
                self._spread(atom, forward=False)

    def _own_costs(self, block: Block, atom: int, surcharge: Sequence[int] | None) -> list[int]:
        costs = [way.cost for way in self._ways[atom]]
        for number, way in enumerate(self._ways[atom]):
            for use in block.outputs[atom]:
                if use.output and not use.after:
                    costs[number] += use.kind.least_write(way.backend, way.writes) // _shares(use)
            if surcharge is not None and atom == block.last:
                costs[number] += surcharge[way.backend]
        return costs

    def _link(self, use: Use | None, producer: int | None, consumer: int) -> None:
        ways = self._ways[consumer]
        costs = []
        for way in () if producer is None else self._ways[producer]:
            costs.append([self._apart(use, way, other) for other in ways])
        edge = Edge(use, producer, consumer, costs, len(ways))
        self._into[consumer].append(edge)
        if producer is not None:
            self._from[producer].append(edge)

    def _apart(self, use: Use | None, way: Way, other: Way) -> int:
        """The least that an edge costs with given ways at both ends."""
        if use is None:
            return 0 if way.backend == other.backend else self._overhead[other.backend]
        cost = use.kind.least_pass(way.backend, way.writes, other.backend, other.reads)
        return cost // _shares(use)

    def _spread(self, atom: int, forward: bool) -> None:
        """Collect an atom's cost-to-go from all its edges and hand it on to those on one side."""
        to_go = list(self._costs[atom])
        for edge in self._from[atom]:
            to_go = [one + more for one, more in zip(to_go, edge.pull_to_producer(), strict=True)]
        for edge in self._into[atom]:
            to_go = [one + more for one, more in zip(to_go, edge.pull_to_consumer(), strict=True)]
        least = min(to_go)
        self._least[atom] = least
        targets = self._from[atom] if forward else self._into[atom]
        if not targets:
            return
        parts = [(cost - least) // len(targets) for cost in to_go]
        for edge in targets:
            given = edge.to_producer if forward else edge.to_consumer
            given[:] = [one - part for one, part in zip(given, parts, strict=True)]

    def of_atoms(self) -> int:
        """The part of the bound that is due to the atoms, none of them done."""
        return sum(self._least)

    def least(self, atom: int) -> int:
        """An atom's part in `of_atoms`."""
        return self._least[atom]

    def crossing(self, mask: int) -> Crossing:
        """The edges that lead out of an ideal."""
        return tuple(
            self._entry(edge)
            for atom, edges in enumerate(self._into)
            if not mask >> atom & 1
            for edge in edges
            if edge.producer is None or mask >> edge.producer & 1
        )

    def after(self, crossing: Crossing, atom: int) -> Crossing:
        """The edges that lead out of an ideal once one more atom is done."""
        left = [entry for entry in crossing if entry[2] != atom]
        return (*left, *map(self._entry, self._from[atom]))

    def at(self, crossing: Crossing) -> Callable[[int, int, int], int]:
        """The rest of the bound at an ideal, as a function of what matters of a state.

        Its arguments: the backend of the open segment, the codes of the tensors, and the first
        atom that may still join the open segment.
        """

        def bound(backend: int, tensors: int, first: int) -> int:
            total, opened = 0, backend + 1 << 1
            for shift, bits, atom, costs in crossing:
                total += costs[(tensors >> shift & bits) << 6 | opened | (atom >= first)]
            return total

        return bound

    def _entry(self, edge: Edge) -> tuple[int, int, int, _Costs]:
        costs = self._crossing_costs.get(edge)
        if costs is None:
            costs = self._crossing_costs[edge] = _Costs(
                lambda key: self._ahead(edge, (key >> 1 & 31) - 1, key >> 6, bool(key & 1))
            )
        shift, bits = (0, 0) if edge.use is None else (edge.use.shift, SLOT_MASK)
        return (shift, bits, edge.consumer, costs)

    def _ahead(self, edge: Edge, backend: int, code: int, joins: bool) -> int:
        ways = self._ways[edge.consumer]
        return min(
            self._from_state(edge, backend, code, way, joins and way.backend == backend) - given
            for way, given in zip(ways, edge.to_consumer, strict=True)
        )

    def _from_state(self, edge: Edge, backend: int, code: int, way: Way, joins: bool) -> int:
        if edge.use is None:
            return 0 if joins else self._overhead[way.backend]
        kind = edge.use.kind
        cost = kind.least_get(backend, code, way.backend, way.reads, joins)
        return cost // _shares(edge.use)


def _shares(use: Use) -> int:
    """Among how many a tensor's costs are split."""
    return use.readers + use.output


def longest_path(succs: Sequence[Sequence[int]]) -> list[int]:
    """Atoms of a path with as many atoms as possible; atoms are in topological order."""
    length = [1] * len(succs)
    following: list[int | None] = [None] * len(succs)
    for atom in reversed(range(len(succs))):
        for succ in succs[atom]:
            if length[succ] + 1 > length[atom]:
                length[atom], following[atom] = length[succ] + 1, succ
    path: list[int] = []
    place: int | None = max(range(len(length)), key=lambda each: length[each], default=None)
    while place is not None:
        path.append(place)
        place = following[place]
    return path
