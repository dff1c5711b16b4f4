"""Delegate calls that a backend refuses, though it takes their atoms one by one.

Only the backend can say which, and only of a call that it is asked about. So the sets of atoms that
it refuses are learned from the plans that hold them, and the graph is solved again with these kept
apart, until the cheapest plan holds none (lazy constraint generation, as in logic-based Benders
decomposition: Hooker and Ottosson, Mathematical Programming 96, 2003).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from .cost_graph import CostGraph
from .errors import IllegalPlanError
from .plan import Plan, Segment
from .pricing import price_plan
from .problem import Ledger

#: Why a backend (name) refuses atoms (ids, in topological order) in one call; None if it does not.
#: With more atoms, a call that is refused stays refused.
Refusal = Callable[[str, Sequence[str]], str | None]


class Calls:
    """Which atoms a backend refuses to have in one call, as far as it has been asked.

    refusal: the backends' answers; they are asked once for every call.
    """

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._known: dict[tuple[str, tuple[str, ...]], str | None] = {}
        self._apart: dict[tuple[str, frozenset[str]], str] = {}

    @property
    def apart(self) -> Mapping[tuple[str, frozenset[str]], str]:
        """By backend and the smallest sets of atoms (ids) it was seen to refuse in a call: why."""
        return self._apart

    def reason(self, backend: str, atoms: Sequence[str]) -> str | None:
        """Return why a call is refused, or None if it is not."""
        key = (backend, tuple(atoms))
        if key not in self._known:
            self._known[key] = self._refusal(*key)
        return self._known[key]

    def allows(self, plan: Plan) -> bool:
        """Whether no call of a plan is refused."""
        return all(self.reason(each.backend, each.atoms) is None for each in plan.partitions)

    def learn(self, plan: Plan) -> None:
        """Find the smallest sets of atoms for which calls of a plan are refused.

        One for every place where the call would have to be cut.
        """
        for segment in plan.partitions:
            backend = segment.backend
            for before, after in itertools.pairwise(self._parts(backend, segment.atoms)):
                # With the first atom of the next part, a part is refused.
                refused = self._smallest(backend, (*before, after[0]))
                reason = self.reason(backend, refused)
                assert reason is not None  # see _smallest
                self._apart[backend, frozenset(refused)] = reason

    def _smallest(self, backend: str, atoms: Sequence[str]) -> tuple[str, ...]:
        """Return atoms of a refused call that are refused, none of which can be left out.

        By bisection, as QuickXplain does (Junker, AAAI 2004).
        """
        place = {atom: number for number, atom in enumerate(atoms)}
        kept: list[str] = []
        rest = list(atoms)

        def refused(some: Sequence[str]) -> bool:
            return self.reason(backend, sorted(some, key=place.__getitem__)) is not None

        while not refused(kept):
            few, most = 0, len(rest)  # of the rest's first atoms: allowed, and refused
            while most - few > 1:
                middle = (few + most) // 2
                if refused([*kept, *rest[:middle]]):
                    most = middle
                else:
                    few = middle
            kept.append(rest[most - 1])
            rest = rest[: most - 1]
        return tuple(sorted(kept, key=place.__getitem__))

    def taken_apart(self, graph: CostGraph, plan: Plan) -> Plan:
        """Cut the calls of a plan that are refused in as few as pass, in the order of their atoms.

        Raises IllegalPlanError for an atom that its backend refuses in any call.
        """
        if self.allows(plan):
            return plan
        segments: list[Segment] = []
        notes = []
        for segment in plan.segments:
            name = segment.backend
            text = self.reason(name, segment.atoms) if segment.is_delegate else None
            if text is None:
                segments.append(segment)
                continue
            parts = self._parts(name, segment.atoms)
            segments += [replace(segment, atoms=part) for part in parts]
            notes.append(f"A call of {name} with {len(segment.atoms)} ops is {len(parts)}: {text}.")
        apart = price_plan(graph, segments, solver=plan.solver, flows=plan.flows)
        return replace(
            apart, lower_bound_ns=plan.lower_bound_ns, notes=plan.notes, states=plan.states
        ).noting(*notes)

    def _parts(self, backend: str, atoms: Sequence[str]) -> list[tuple[str, ...]]:
        """Cut atoms in as few runs as pass."""
        parts: list[tuple[str, ...]] = []
        for atom in atoms:
            if parts and self.reason(backend, (*parts[-1], atom)) is None:
                parts[-1] = (*parts[-1], atom)
                continue
            alone = self.reason(backend, (atom,))
            if alone is not None:
                raise IllegalPlanError(
                    f"atom {atom!r} is in a segment for {backend!r}, which refuses it in any call: "
                    f"{alone}."
                )
            parts.append((atom,))
        return parts


class CallLedger:
    """Counts, along a search path, which of the atoms to be kept apart the open segment holds.

    The count holds one bit for each of them below, and what another ledger counts above.

    apart: by backend, the sets of atoms (ids) that may not be in one call. atoms: by problem index,
        the atom's index in the graph.
    """

    def __init__(
        self,
        graph: CostGraph,
        apart: Sequence[tuple[str, frozenset[str]]],
        atoms: Sequence[int],
        other: Ledger | None = None,
    ) -> None:
        place = {index: number for number, index in enumerate(atoms)}
        self._other = other
        self._bits: list[dict[int, int]] = [{} for _ in atoms]
        self._sets: list[int] = []
        count = 0
        for name, members in apart:
            backend = graph.backend_index[name]
            self._sets.append(((1 << len(members)) - 1) << count)
            for member in sorted(members):
                row = self._bits[place[graph.atom_index[member]]]
                row[backend] = row.get(backend, 0) | 1 << count
                count += 1
        self._shift = count
        self._mask = (1 << count) - 1

    def opened(self, used: int, backend: int) -> int:
        """The count after opening a segment."""
        if self._other is None:
            return used
        return self._other.opened(used >> self._shift, backend) << self._shift | used & self._mask

    def closed(self, used: int) -> int:
        """The count after closing the open segment."""
        if self._other is None:
            return 0
        return self._other.closed(used >> self._shift) << self._shift

    def ran(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in the open segment."""
        held = used & self._mask | self._bits[atom].get(backend, 0)
        if self._other is None:
            return held
        return self._other.ran(used >> self._shift, atom, backend) << self._shift | held

    def ran_detached(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in a segment of its own."""
        held = used & self._mask
        if self._other is None:
            return held
        more = self._other.ran_detached(used >> self._shift, atom, backend)
        return more << self._shift | held

    def allows(self, used: int) -> bool:
        """Whether a plan may have come to this."""
        if any(used & members == members for members in self._sets):
            return False
        return self._other is None or self._other.allows(used >> self._shift)

    def covers(self, used: int, other: int) -> bool:
        """Whether whatever is allowed after the other is allowed after this one."""
        if used & ~other & self._mask:
            return False
        mine, theirs = used >> self._shift, other >> self._shift
        return mine == theirs or (self._other is not None and self._other.covers(mine, theirs))

    def signature(self, atoms: Sequence[int]) -> Hashable:
        """What is counted of atoms (problem indices); equal where paths count alike."""
        own = tuple(tuple(self._bits[atom].items()) for atom in atoms)
        return own, None if self._other is None else self._other.signature(atoms)
