"""Shortest paths over the ideals of one block, atom by atom.

A state is a set of atoms done (an ideal), the backend of the open segment, and the code of every
tensor that still matters (see `tensors`). A step adds a ready atom, either to the open segment or
after closing it and opening another. Within a segment atoms are added in ascending order, so that
every legal plan is one such path, and its cost the path's.

States that cannot lead to a better plan are dropped:

* a state is dominated by one at the same ideal that is ahead of it by what the other would have to
  pay at most to make up for the difference (`TensorClass.lag`, a call overhead);
* with a limit on what the whole block may cost, a state is hopeless if the least that its remaining
  atoms cost (`Potentials`) brings it above that.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .blocks import Block, Use
from .potentials import Crossing, Potentials
from .problem import Problem
from .tensors import DELIVER, DROP, FRESH, KEEP, SLOT_BITS, SLOT_MASK

CLOSED = -1
# How many of the cheapest states at an ideal others are compared with.
_RIVALS = 24
# How many times as many states as are kept are compared with each other first.
_TRIED = 4

#: What matters of a path at an ideal: the backend of the open segment, CLOSED for none; a code per
#: slot of the block; the first atom that can still join the open segment (what is not done of those
#: below cannot); what the ledger of constraints counts.
State = tuple[int, int, int, int]
START: State = (CLOSED, 0, 0, 0)

# How an atom was added: to the open segment, to a new one, to a detached one.
JOINED, OPENED, DETACHED = range(3)
#: How a state was reached: its cost, ideal and state before, atom and way, and how it was added.
Step = tuple[int, int, State, int, int, int]
#: States by ideal.
Level = dict[int, dict[State, Step]]
#: (atom, way, how) for each atom of a block, in order.
Trace = tuple[tuple[int, int, int], ...]


class Exit(NamedTuple):
    """A state after a block: its cost, the state before the block, and the path between."""

    cost: int
    entry: State
    trace: Trace


@dataclass
class BlockResult:
    """exits: the best path to every state after the block that is worth keeping.

    dropped: whether states were dropped for want of room, so that better paths may be missing.
    states: how many were kept in all.
    """

    exits: dict[State, Exit]
    dropped: bool
    states: int


@dataclass
class _Moves:
    """One way to run an atom at ideals where its tensors have the same fates.

    done: costs and changes of the codes, by the codes of the atom's inputs. detached: the same for
    running detached, by the backend of the open segment as well.
    """

    number: int
    cost: int
    layout: int
    made: int
    done: dict[int, list[tuple[int, int]]]
    detached: dict[tuple[int, int], list[tuple[int, int]]]


class BlockSearch:
    """Searches one block.

    room: how many states are kept before only the best `width` per number of atoms done are; None
    for no end. limits: by backend, the cost above which ending the block with a segment open there
    is of no use.
    """

    def __init__(
        self,
        problem: Problem,
        block: Block,
        *,
        room: int | None = None,
        width: int = 0,
        limits: Sequence[int] | None = None,
    ) -> None:
        self._block = block
        self._room = room
        self._width = width
        self._overhead = problem.overhead
        self._ledger = problem.ledger
        self._relaxed = problem.relaxed
        self._limit = None if limits is None else max(limits)
        surcharge = None if limits is None else [max(limits) - limit for limit in limits]
        self._potentials = Potentials(problem, block, surcharge)
        ready = tuple(atom for atom, preds in enumerate(block.preds) if not preds)
        self._capable = [
            sum(1 << atom for atom, ways in enumerate(block.ways) if backend in ways)
            for backend in range(len(problem.overhead))
        ]
        # By ideal: what remains costs at least, and the atoms that are ready.
        self._ahead: dict[int, tuple[int, tuple[int, ...]]] = {
            0: (self._potentials.of_atoms(), ready)
        }
        # By ideal: one before it, and the atom between. By ideal of the last level: what leads out.
        self._before: dict[int, tuple[int, int]] = {}
        self._crossings: dict[int, Crossing] = {}
        self._read = [sum(SLOT_MASK << use.shift for use in row) for row in block.inputs]
        self._moves: dict[tuple[int, ...], list[tuple[int, list[_Moves]]]] = {}
        self._closings: dict[tuple[int, int], tuple[int, int]] = {}
        # By backend and code in its slot: the cost of closing, and the code then, in its slot.
        self._closed_parts: list[dict[int, tuple[int, int]]] = [{} for _ in problem.overhead]
        self._dropped = False
        self._states = 0

    def run(self, entries: Mapping[State, int]) -> BlockResult:
        """Find the best path from any entry to every exit state that may be of use."""
        levels: list[Level] = [{0: {s: (c, 0, START, -1, -1, JOINED) for s, c in entries.items()}}]
        for _ in self._block.atoms:
            levels[-1] = self._fitting(levels[-1])
            self._crossings = {m: c for m, c in self._crossings.items() if m in levels[-1]}
            longer: Level = {}
            for mask, states in levels[-1].items():
                self._expand(mask, states, longer)
            levels.append(longer)
        full = self._block.full
        exits = {}
        for state in self._undominated(levels[-1].get(full, {})):
            entry, trace = _trace(levels, full, state)
            exits[state] = Exit(levels[-1][full][state][0], entry, trace)
        return BlockResult(exits, self._dropped, self._states)

    def _fitting(self, level: Level) -> Level:
        """The level without dominated or hopeless states, and within the width."""
        bounds: dict[int, dict[State, int]] = {}
        if self._limit is not None:
            bounds = {mask: self._bounds(mask, states) for mask, states in level.items()}
            level = {m: {s: level[m][s] for s in row} for m, row in bounds.items() if row}
        if self._room is None or self._states <= self._room:
            level = {mask: self._undominated(states) for mask, states in level.items()}
            self._states += sum(map(len, level.values()))
            if self._room is None or self._states <= self._room:
                return level
        return self._narrowed(level, bounds)

    def _narrowed(self, level: Level, bounds: Mapping[int, Mapping[State, int]]) -> Level:
        """The `width` states with the lowest bounds, of those that none of these dominates."""
        ranked = []
        for mask, states in level.items():
            row = bounds[mask] if bounds else self._bounds(mask, states)
            ranked += [(row[state], mask, state) for state in states]
        self._states += len(ranked)
        # To find out which are dominated takes longer than to rank them, and most are left out.
        tried, kept = 0, list[tuple[int, int, State]]()
        while tried < len(ranked) and len(kept) < self._width:
            tried = max(tried, self._width) * _TRIED
            best = heapq.nsmallest(tried, ranked)
            left = {m: self._undominated(row) for m, row in _picked(level, best).items()}
            kept = [(bound, mask, state) for bound, mask, state in best if state in left[mask]]
        self._dropped |= tried < len(ranked) or len(kept) > self._width
        return _picked(level, kept[: self._width])

    def _bounds(self, mask: int, states: Mapping[State, Step]) -> dict[State, int]:
        """What a path through a state costs at least, for the states within the limit."""
        rest = self._ahead[mask][0]
        bound_of = self._potentials.at(self._crossing(mask))
        bounds = {}
        for state, step in states.items():
            bound = step[0] + rest + bound_of(state[0], state[1], state[2])
            if self._limit is None or bound <= self._limit:
                bounds[state] = bound
        return bounds

    def _crossing(self, mask: int) -> Crossing:
        """The edges that lead out of an ideal, if possible from those of the one before."""
        found = self._crossings.get(mask)
        if found is None:
            before, atom = self._before.get(mask, (0, 0))
            known = self._crossings.get(before)
            if known is None or not mask:
                found = self._potentials.crossing(mask)
            else:
                found = self._potentials.after(known, atom)
            self._crossings[mask] = found
        return found

    def _undominated(self, states: Mapping[State, Step]) -> dict[State, Step]:
        """States at one ideal that no other one dominates."""
        if len(states) == 1:
            return dict(states)
        kept: dict[State, Step] = {}
        count = 0
        rivals: dict[int, list[tuple[State, int]]] = {CLOSED: []}  # by open backend
        waiting: deque[tuple[State, int]] = deque()  # rivals with a segment open, to be closed
        for state, step in sorted(states.items(), key=lambda item: (item[1][0], item[0])):
            backend, cost = state[0], step[0]
            alike = rivals.setdefault(backend, [])
            left = cost if backend == CLOSED else cost - self._overhead[backend]
            while waiting and waiting[0][1] <= left:  # closing costs what it takes to find out
                rivals[CLOSED].append(self._closed(*waiting.popleft()))
            if self._is_dominated(state, cost, alike, None) or (
                backend != CLOSED and self._is_dominated(state, cost, rivals[CLOSED], backend)
            ):
                continue
            kept[state] = step
            if count < _RIVALS:
                count += 1
                alike.append((state, cost))
                if backend != CLOSED:
                    count += 1
                    waiting.append((state, cost))
        return kept

    def _closed(self, state: State, cost: int) -> tuple[State, int]:
        """A state once its open segment is closed."""
        more, tensors = self._close(state[0], state[1])
        used = state[3] if self._ledger is None else self._ledger.closed(state[3])
        return (CLOSED, tensors, 0, used), cost + more

    def _is_dominated(
        self,
        state: State,
        cost: int,
        rivals: Sequence[tuple[State, int]],
        opened: int | None,
    ) -> bool:
        """Whether going on from a state is never better than from a rival at the same ideal.

        opened: the backend on which rivals, in which nothing is open, open a segment first.
        """
        left = cost if opened is None else cost - self._overhead[opened]
        ready = state[2]
        for rival, rival_cost in rivals:
            if (
                rival_cost <= left
                and rival[2] <= ready
                and self._covers(rival, state, left - rival_cost, opened)
            ):
                return True
        return False

    def _covers(self, rival: State, state: State, room: int, opened: int | None) -> bool:
        """Whether what a rival lacks of a state's tensors costs no more than the room."""
        backend, used = state[0], rival[3]
        if opened is not None and self._ledger is not None:
            used = self._ledger.opened(used, opened)
        if used != state[3] and (self._ledger is None or not self._ledger.covers(used, state[3])):
            return False
        for slot in _slots(rival[1] ^ state[1]):
            use = self._block.uses[slot]
            mine = rival[1] >> use.shift & SLOT_MASK
            theirs = state[1] >> use.shift & SLOT_MASK
            room -= use.kind.lag(backend, mine, theirs, use.readers)
            if room < 0:
                return False
        return True

    def _close(self, backend: int, tensors: int) -> tuple[int, int]:
        """The cost of closing the open segment, and the codes then."""
        key = (backend, tensors)
        known = self._closings.get(key)
        if known is not None:
            return known
        cost, left, rest, parts = 0, 0, tensors, self._closed_parts[backend]
        while rest:
            shift = ((rest & -rest).bit_length() - 1) // SLOT_BITS * SLOT_BITS
            part = rest & SLOT_MASK << shift
            rest ^= part
            found = parts.get(part)
            if found is None:
                more, code = self._block.uses[shift // SLOT_BITS].kind.close(backend, part >> shift)
                found = parts[part] = (more, code << shift)
            cost += found[0]
            left |= found[1]
        self._closings[key] = (cost, left)
        return cost, left

    def _expand(self, mask: int, states: Mapping[State, Step], longer: Level) -> None:
        """Add every ready atom to every state of an ideal."""
        closed: dict[tuple[int, int], tuple[int, State]] = {}
        open_states: dict[int, list[tuple[State, int]]] = {}
        for state, step in states.items():
            backend, tensors, _, used = state
            cost = step[0]
            if backend != CLOSED:
                open_states.setdefault(backend, []).append((state, cost))
                more, tensors = self._close(backend, tensors)
                cost += more
                if self._ledger is not None:
                    used = self._ledger.closed(used)
            known = closed.get((tensors, used))
            if known is None or cost < known[0]:
                closed[tensors, used] = (cost, state)
        for atom in self._ahead[mask][1]:
            done = self._look_ahead(mask, atom)
            target = longer.setdefault(done, {})
            fate = self._block.floating.get(atom)
            if fate is not None:
                self._run_detached(mask, atom, done, states, target)
            for backend, ways in self._moves_of(atom, done):
                overhead = self._overhead[backend]
                starts = []
                if fate != "late":
                    starts = [
                        (origin, tensors, cost + overhead, used, OPENED)
                        for (tensors, used), (cost, origin) in closed.items()
                    ]
                starts += [
                    (state, state[1], cost, state[3], JOINED)
                    for state, cost in open_states.get(backend, ())
                    if atom >= state[2]
                ]
                if self._ledger is not None:
                    starts = self._booked(starts, self._block.atoms[atom], backend)
                left_out = ~done & self._capable[backend] & (1 << atom) - 1
                first = left_out.bit_length()
                read = self._read[atom]
                for way in ways:
                    moves = way.done
                    for origin, tensors, cost, used, how in starts:
                        key = tensors & read
                        if key not in moves:
                            moves[key] = self._run(atom, done, backend, way, key)
                        for more, change in moves[key]:
                            after = (backend, tensors ^ change, first, used)
                            total = cost + more
                            known_step = target.get(after)
                            if known_step is None or total < known_step[0]:
                                target[after] = (total, mask, origin, atom, way.number, how)

    def _run_detached(
        self,
        mask: int,
        atom: int,
        done: int,
        states: Mapping[State, Step],
        target: dict[State, Step],
    ) -> None:
        """Run a floating atom in a segment of its own, which leaves the open one open."""
        for backend, ways in self._moves_of(atom, done):
            overhead = 0 if self._relaxed else self._overhead[backend]
            starts = [
                (state, state[1], step[0] + overhead, state[3], DETACHED)
                for state, step in states.items()
            ]
            if self._ledger is not None:
                starts = self._booked(starts, self._block.atoms[atom], backend)
            for origin, tensors, cost, used, how in starts:
                open_on, _, first, _ = origin
                if open_on != CLOSED:
                    left_out = ~done & self._capable[open_on] & (1 << first) - 1
                    first = left_out.bit_length()
                for way in ways:
                    key = (open_on, tensors & self._read[atom])
                    if key not in way.detached:
                        way.detached[key] = self._detached(atom, done, backend, way, *key)
                    for more, change in way.detached[key]:
                        after = (open_on, tensors ^ change, first, used)
                        total = cost + more
                        known = target.get(after)
                        if known is None or total < known[0]:
                            target[after] = (total, mask, origin, atom, way.number, how)

    def _detached(
        self, atom: int, done: int, backend: int, way: _Moves, open_on: int, tensors: int
    ) -> list[tuple[int, int]]:
        """Costs of running an atom detached, and changes of the tensors' codes."""
        late = self._block.floating[atom] == "late"
        results = [(way.cost, 0)]
        for use in self._block.inputs[atom]:
            code = tensors >> use.shift & SLOT_MASK
            fate = _fate(use, done)
            moves = use.kind.read_detached(open_on, code, backend, way.layout, fate, late)
            results = [
                (cost + more, change ^ (code ^ after) << use.shift)
                for cost, change in results
                for more, after in moves
            ]
        for use in self._block.outputs[atom]:
            cost, after = use.kind.close(backend, way.made >> use.shift & SLOT_MASK)
            if late and after and open_on != CLOSED:
                after |= FRESH
            results = [(total + cost, change ^ after << use.shift) for total, change in results]
        return results

    def _booked(
        self, starts: list[tuple[State, int, int, int, int]], atom: int, backend: int
    ) -> list[tuple[State, int, int, int, int]]:
        """Starts that the constraints allow, with what they count."""
        assert self._ledger is not None
        allowed = []
        for origin, tensors, cost, used, how in starts:
            if how == DETACHED:
                after = self._ledger.ran_detached(used, atom, backend)
            else:
                opened = used if how == JOINED else self._ledger.opened(used, backend)
                after = self._ledger.ran(opened, atom, backend)
            if self._ledger.allows(after):
                allowed.append((origin, tensors, cost, after, how))
        return allowed

    def _look_ahead(self, mask: int, atom: int) -> int:
        """Note what is ahead after running a ready atom, and give the ideal then."""
        done = mask | 1 << atom
        if done not in self._ahead:
            rest, ready = self._ahead[mask]
            preds = self._block.preds
            freed = [succ for succ in self._block.succs[atom] if not preds[succ] & ~done]
            left = tuple(other for other in ready if other != atom)
            self._ahead[done] = (rest - self._potentials.least(atom), (*left, *freed))
            self._before[done] = (mask, atom)
        return done

    def _moves_of(self, atom: int, done: int) -> list[tuple[int, list[_Moves]]]:
        """By backend, the ways to run an atom, for what becomes of its tensors then."""
        inputs, outputs = self._block.inputs[atom], self._block.outputs[atom]
        key = (atom, *[_fate(use, done) for use in inputs])
        if key not in self._moves:
            table = []
            for backend, ways in self._block.ways[atom].items():
                row = []
                for number, way in ways:
                    made = 0
                    for use in outputs:
                        made |= use.kind.made(way.writes, _fate(use, done)) << use.shift
                    row.append(_Moves(number, way.cost, way.reads, made, {}, {}))
                table.append((backend, row))
            self._moves[key] = table
        return self._moves[key]

    def _run(
        self, atom: int, done: int, backend: int, way: _Moves, tensors: int
    ) -> list[tuple[int, int]]:
        """Costs of running an atom in the open segment, and changes of the tensors' codes."""
        results = [(way.cost, way.made)]
        for use in self._block.inputs[atom]:
            code = tensors >> use.shift & SLOT_MASK
            moves = use.kind.acquire(backend, code, way.layout, _fate(use, done))
            results = [
                (cost + more, change ^ (code ^ after) << use.shift)
                for cost, change in results
                for more, after in moves
            ]
        return results


def _picked(level: Level, ranked: Sequence[tuple[int, int, State]]) -> Level:
    """A part of a level: some of its states, by bound and ideal."""
    part: Level = {}
    for _, mask, state in ranked:
        part.setdefault(mask, {})[state] = level[mask][state]
    return part


def _slots(tensors: int) -> Iterator[int]:
    """The slots whose code is not zero; of many, few are."""
    while tensors:
        slot = ((tensors & -tensors).bit_length() - 1) // SLOT_BITS
        yield slot
        tensors &= -1 << SLOT_BITS * (slot + 1)


def _fate(use: Use, done: int) -> int:
    """What becomes of a tensor once the atoms in the mask are done."""
    if use.after or use.users & ~done:
        return KEEP
    return DELIVER if use.output else DROP


def _trace(levels: list[Level], mask: int, state: State) -> tuple[State, Trace]:
    steps = []
    for level in reversed(levels[1:]):
        _, mask, state_before, atom, way, how = level[mask][state]
        steps.append((atom, way, how))
        state = state_before
    return state, tuple(reversed(steps))
