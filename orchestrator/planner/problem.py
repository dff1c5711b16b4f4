"""A cost graph compiled for searching: whole numbers, small indices and tables.

Times become multiples of 1/64 ns, shifted left to leave room for a count of delegate calls in the
lowest bits, so that among equally cheap plans the one with fewer calls wins, exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .cost_graph import CostGraph, Option
from .elements import Layout
from .errors import InfeasibleAtomError, InvalidGraphError, UnknownCostError
from .floating import Floating, NearOrder
from .tensors import UNITS_PER_NS, TensorClass, forms_of, whole_cost

_LAYOUTS = tuple(Layout)
_MOST_BACKENDS = 16  # for which the codes of tensors have room


class Ledger(Protocol):
    """What a search counts along a path, in one number, for constraints on whole plans."""

    def opened(self, used: int, backend: int) -> int:
        """The count after opening a segment."""

    def closed(self, used: int) -> int:
        """The count after closing the open segment."""

    def ran(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in the open segment."""

    def ran_detached(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in a segment of its own."""

    def allows(self, used: int) -> bool:
        """Whether a plan may have come to this."""

    def covers(self, used: int, other: int) -> bool:
        """Whether whatever is allowed after the other is allowed after this one."""

    def signature(self, atoms: Sequence[int]) -> Hashable:
        """What is counted of atoms (problem indices); equal where paths count alike."""


@dataclass(frozen=True)
class Way:
    """A compiled option: how one atom can run."""

    backend: int
    reads: int
    writes: int
    cost: int


class Problem:
    """A graph with the allowed options, atoms renumbered in topological order.

    allowed: by atom index of the graph, its options that the constraints leave. extra_call_ns:
    added to the overhead of every delegate call. near: an order with floating atoms (see
    `floating`), for a restricted search. relaxed: let these read for nothing, and run detached
    without a call overhead, so that the cheapest plan is a lower bound on all plans of the graph.

    Raises InfeasibleAtomError or UnknownCostError naming an atom without any option, or without one
    whose cost is known. Options of unknown cost are left out where another's is known.
    """

    def __init__(
        self,
        graph: CostGraph,
        allowed: Sequence[Sequence[Option]] | None = None,
        *,
        extra_call_ns: float = 0.0,
        near: NearOrder | None = None,
        relaxed: bool = False,
    ) -> None:
        if len(graph.backends) > _MOST_BACKENDS:
            raise InvalidGraphError(
                f"{len(graph.backends)} backends are more than the {_MOST_BACKENDS} that can be "
                "searched; leave some out."
            )
        self.graph = graph
        self.ledger: Ledger | None = None
        self.atoms = graph.order if near is None else near.order  # graph index by problem index
        # By problem index: whether an atom floats, and if so, in which direction.
        self.floating: dict[int, Floating] = {}
        for number, atom in enumerate(self.atoms if near else ()):
            if near and atom in near.early | near.late:
                self.floating[number] = "early" if atom in near.early else "late"
        self.relaxed = relaxed
        count = len(self.atoms)
        self.call_bits = max(1, count.bit_length())
        self.unit = 1 << self.call_bits
        options = graph.options if allowed is None else allowed
        self.skipped_unknown: list[tuple[str, str]] = []
        self.options = [self._known(index, options[index]) for index in self.atoms]
        self.ways = [tuple(self._way(option) for option in row) for row in self.options]
        place = {index: number for number, index in enumerate(self.atoms)}
        self.preds = [tuple(place[p] for p in graph.preds[index]) for index in self.atoms]
        self.succs = [tuple(place[s] for s in graph.succs[index]) for index in self.atoms]
        self.outputs = [graph.outputs[index] for index in self.atoms]
        readers = [not relaxed or number not in self.floating for number in range(count)]
        self.inputs = [
            graph.inputs[index] if reads else ()
            for index, reads in zip(self.atoms, readers, strict=True)
        ]
        self.consumers = [
            tuple(sorted(place[user] for user in users if readers[place[user]]))
            for users in graph.consumers
        ]
        self.overhead = [
            whole_cost(backend.call_overhead_ns + extra_call_ns, self.unit) + 1
            if backend.is_delegate
            else 0
            for backend in graph.backends
        ]
        self.producer = [None if p is None else place[p] for p in graph.producer]
        self._classes: dict[object, TensorClass] = {}
        self.classes = [self._class(tensor) for tensor in range(len(graph.tensors))]

    def in_ns(self, cost: int) -> float:
        """A cost of this problem in ns, without the count of calls."""
        return (cost >> self.call_bits) / UNITS_PER_NS

    def _known(self, index: int, options: Sequence[Option]) -> tuple[Option, ...]:
        atom = self.graph.atoms[index].id
        if not options:
            raise InfeasibleAtomError(
                f"no backend can run the atom {atom!r}. Add one that can, such as ExecuTorch's own "
                "kernels, or loosen the constraints on it."
            )
        known = tuple(option for option in options if option.price is not None)
        if not known:
            names = [self.graph.backends[option.backend].name for option in options]
            raise UnknownCostError(
                f"the cost of atom {atom!r} is unknown on every backend that can run it: {names}. "
                "Measure it or give it a modelled cost."
            )
        for option in options:
            if option.price is None:
                name = self.graph.backends[option.backend].name
                self.skipped_unknown.append((atom, name))
        return known

    def _way(self, option: Option) -> Way:
        assert option.price is not None  # see _known
        return Way(
            option.backend,
            _LAYOUTS.index(option.flow.reads),
            _LAYOUTS.index(option.flow.writes),
            whole_cost(option.price.ns, self.unit),
        )

    def _class(self, tensor: int) -> TensorClass:
        spec = self.graph.tensors[tensor]
        transfers = tuple(
            self.graph.transfer(tensor, backend) for backend in range(len(self.graph.backends))
        )
        form = forms_of(spec.layouts)
        maker = self.producer[tensor]
        made = [0 for _ in transfers]
        for way in () if maker is None else self.ways[maker]:
            made[way.backend] |= 1 << form[way.writes]
        wanted = [0 for _ in transfers]
        for user in self.consumers[tensor]:
            for way in self.ways[user]:
                wanted[way.backend] |= 1 << form[way.reads]
        key = (
            spec.layouts,
            spec.allowed_in_memory(),
            maker is None,
            transfers,
            tuple(made),
            tuple(wanted),
        )
        if key not in self._classes:
            self._classes[key] = TensorClass(*key, self.unit)
        return self._classes[key]
