"""A cost graph compiled for searching: whole numbers, small indices and tables.

Times become multiples of 1/64 ns, shifted left to leave room for a count of delegate calls in the
lowest bits, so that among equally cheap plans the one with fewer calls wins, exactly.

Where a tensor is, while atoms are added to a plan one by one, fits in a code of 4 bits:

* bits 0 and 1: the forms (layouts) it has inside the open segment, made or read or converted there;
* bits 2 and 3: 0 if it is not in memory; 1 or 2 if it is, in its first or second layout; 3 if no
  atom wants it any more, but the caller does and it is yet to be written.

0 stands for a tensor of the caller that nothing has touched, and for one that is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cost_graph import CostGraph, Option
from .elements import Layout, Transfer
from .errors import InfeasibleAtomError, UnknownCostError

UNITS_PER_NS = 64
PENDING = 3  # in bits 2 and 3: to be written for the caller when the segment closes
_LAYOUTS = tuple(Layout)

#: What it costs to get there, and the code of the tensor then.
Move = tuple[int, int]


@dataclass(frozen=True)
class Way:
    """A compiled option: how one atom can run."""

    backend: int
    reads: int
    writes: int
    cost: int


class TensorClass:
    """Tables for all tensors that have the same layouts and the same transfers."""

    def __init__(
        self,
        layouts: tuple[Layout, ...],
        memory: tuple[Layout, ...],
        from_caller: bool,
        transfers: Sequence[Transfer],
        unit: int,
    ) -> None:
        self.form = tuple(layouts.index(each) if each in layouts else 0 for each in _LAYOUTS)
        self._forms = range(len(layouts))
        self._memory = tuple(layouts.index(each) for each in memory)
        self._from_caller = from_caller
        self._read = [
            [[_whole(each.read(m, f), unit) for f in layouts] for m in layouts]
            for each in transfers
        ]
        self._write = [
            [[_whole(each.write(f, m), unit) for m in layouts] for f in layouts]
            for each in transfers
        ]
        self._convert = [_whole(each.convert_ns, unit) for each in transfers]
        self._acquired: dict[tuple[int, int, int], tuple[Move, ...]] = {}
        self._closed: dict[tuple[int, int], tuple[Move, ...]] = {}
        self.max_read = [max(max(row) for row in table) for table in self._read]
        self.max_write = [max(max(row) for row in table) for table in self._write]
        # What a reader can lose at most by finding the tensor in another layout than the best.
        self.max_mismatch = 0
        if len(self._memory) > 1:
            self.max_mismatch = max(
                table[m][f] - table[1 - m][f]
                for table in self._read
                for m in self._memory
                for f in self._forms
            )

    def acquire(self, backend: int, code: int, layout: int) -> tuple[Move, ...]:
        """Ways for the open segment to have the tensor in a layout, none better than another."""
        key = (backend, code, layout)
        if key not in self._acquired:
            self._acquired[key] = self._acquire(backend, code, self.form[layout])
        return self._acquired[key]

    def _acquire(self, backend: int, code: int, form: int) -> tuple[Move, ...]:
        inside, memory = code & 3, code >> 2
        if inside >> form & 1:
            return ((0, code),)
        convert = self._convert[backend]
        moves = []
        if inside:
            moves.append((convert, inside | 1 << form, memory))
        for source in self._sources(inside, memory):
            read = self._read[backend][source]
            moves.append((read[form], inside | 1 << form, source + 1))
            if len(self._forms) > 1 and not inside:
                moves.append((read[1 - form] + convert, 3, source + 1))
        return _best_moves([(cost, self._normal(backend, s, m)) for cost, s, m in moves])

    def _sources(self, inside: int, memory: int) -> tuple[int, ...]:
        if memory:
            return (memory - 1,)
        return () if inside else self._memory  # the caller's, not touched yet

    def close(self, backend: int, code: int) -> tuple[Move, ...]:
        """Ways to leave the tensor behind when the open segment closes."""
        key = (backend, code)
        if key not in self._closed:
            self._closed[key] = self._close(backend, code)
        return self._closed[key]

    def _close(self, backend: int, code: int) -> tuple[Move, ...]:
        inside, memory = code & 3, code >> 2
        if not inside:
            return ((0, code),)
        if memory in (1, 2):
            return ((0, self._normal(backend, 0, memory)),)
        forms = [form for form in self._forms if inside >> form & 1]
        writes = [
            (min(self._write[backend][form][layout] for form in forms), layout + 1 << 2)
            for layout in self._memory
        ]
        if memory == PENDING:
            return ((min(cost for cost, _ in writes), 0),)
        return tuple(writes)

    def _normal(self, backend: int, inside: int, memory: int) -> int:
        """Give states that have the same future the same code."""
        if memory in (1, 2):
            for form in self._forms:
                if self._read[backend][memory - 1][form] == 0:
                    inside &= ~(1 << form)  # to have it read or not is the same
            if not inside and self._from_caller and len(self._memory) == 1:
                return 0
        return inside | memory << 2


def _best_moves(moves: Sequence[Move]) -> tuple[Move, ...]:
    """Drop moves that cost no less than another that leads to the same code or to more forms."""
    kept: list[Move] = []
    for cost, code in sorted(moves):
        if not any(code | other == other and code >> 2 == other >> 2 for _, other in kept):
            kept.append((cost, code))
    return tuple(kept)


class Problem:
    """A graph with the allowed options, atoms renumbered in topological order.

    allowed: by atom index of the graph, its options that the constraints leave.

    Raises InfeasibleAtomError or UnknownCostError naming an atom without any option, or without one
    whose cost is known. Options of unknown cost are left out where another's is known.
    """

    def __init__(self, graph: CostGraph, allowed: Sequence[Sequence[Option]] | None = None) -> None:
        self.graph = graph
        self.atoms = graph.order  # graph index by problem index
        count = len(self.atoms)
        self.call_bits = max(1, count.bit_length())
        self.unit = UNITS_PER_NS << self.call_bits
        options = graph.options if allowed is None else allowed
        self.skipped_unknown: list[tuple[str, str]] = []
        self.options = [self._known(index, options[index]) for index in self.atoms]
        self.ways = [tuple(self._way(option) for option in row) for row in self.options]
        place = {index: number for number, index in enumerate(self.atoms)}
        self.preds = [tuple(place[p] for p in graph.preds[index]) for index in self.atoms]
        self.succs = [tuple(place[s] for s in graph.succs[index]) for index in self.atoms]
        self.inputs = [graph.inputs[index] for index in self.atoms]
        self.outputs = [graph.outputs[index] for index in self.atoms]
        self.consumers = [tuple(sorted(place[u] for u in users)) for users in graph.consumers]
        self.overhead = [
            _whole(backend.call_overhead_ns, self.unit) + backend.is_delegate
            for backend in graph.backends
        ]
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
            _whole(option.price.ns, self.unit),
        )

    def _class(self, tensor: int) -> TensorClass:
        spec = self.graph.tensors[tensor]
        transfers = tuple(
            self.graph.transfer(tensor, backend) for backend in range(len(self.graph.backends))
        )
        key = (spec.layouts, spec.allowed_in_memory(), spec.producer is None, transfers)
        if key not in self._classes:
            self._classes[key] = TensorClass(*key, self.unit)
        return self._classes[key]


def _whole(ns: float, unit: int) -> int:
    return round(ns * UNITS_PER_NS) * (unit // UNITS_PER_NS)
