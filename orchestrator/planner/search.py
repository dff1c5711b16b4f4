"""Shortest paths over the ideals of one block, atom by atom.

A state is a set of atoms done (an ideal), the backend of the open segment, and the code of every
tensor that still matters (see `tensors`). A step adds a ready atom, either to the open segment or
after closing it and opening another. Within a segment atoms are added in ascending order, so that
every legal plan is one such path, and its cost the path's.

States that cannot lead to a better plan are dropped:

* a state is dominated by one at the same ideal that is ahead of it by what the other would have to
  pay at most to make up for the difference (`TensorClass.lag`, a call overhead);
* with a limit on what the whole block may cost, a state is hopeless if the least that its remaining
  atoms cost brings it above that.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .blocks import Block, Use
from .potentials import Potentials
from .problem import Problem, Way
from .tensors import DELIVER, DROP, KEEP, SLOT_BITS, SLOT_MASK

CLOSED = -1
# How many of the cheapest states at an ideal others are compared with.
_RIVALS = 24


class State(NamedTuple):
    """What matters of a path at an ideal.

    backend: of the open segment, CLOSED for none. tensors: a code per slot of the block.
    first: atoms below it that are not done cannot join the open segment any more.
    used: what constraints count: delegate calls, and backends by shared constant.
    """

    backend: int
    tensors: int
    first: int
    used: int


class Step(NamedTuple):
    """How a state was reached: the atom added last, its way, and whether it opened a segment."""

    cost: int
    before: tuple[int, State] | None
    atom: int
    way: int
    opens: bool


#: (atom, way, opens) for each atom of a block, in order.
Trace = tuple[tuple[int, int, bool], ...]
#: States by ideal.
Level = dict[int, dict[State, Step]]


class Exit(NamedTuple):
    """A state after a block: its cost, the state before the block, and the path between."""

    cost: int
    entry: State
    trace: Trace


@dataclass
class BlockResult:
    """exits: the best path to every state after the block that is worth keeping.

    dropped: whether states were dropped for want of room, so that better paths may be missing.
    """

    exits: dict[State, Exit]
    dropped: bool
    states: int


class BlockSearch:
    """Searches one block; `width` limits how many states are kept per number of atoms done.

    limits: by backend, the cost above which ending the block with a segment open there is of no
    use.
    """

    def __init__(
        self,
        problem: Problem,
        block: Block,
        width: int | None,
        limits: Sequence[int] | None = None,
    ) -> None:
        self._limit = None if limits is None else max(limits)
        surcharge = None if limits is None else [max(limits) - limit for limit in limits]
        self._block = block
        self._width = width
        self._overhead = problem.overhead
        self._potentials = Potentials(problem, block, surcharge)
        ready = tuple(atom for atom, preds in enumerate(block.preds) if not preds)
        self._capable = [
            sum(1 << atom for atom, ways in enumerate(block.ways) if backend in ways)
            for backend in range(len(problem.overhead))
        ]
        # By ideal: what remains costs at least, and the atoms that are ready.
        self._ahead: dict[int, tuple[int, tuple[int, ...]]] = {
            0: (self._potentials.of_atoms(0), ready)
        }
        self._dropped = False
        self._states = 0

    def run(self, entries: Mapping[State, int]) -> BlockResult:
        """Find the best path from any entry to every exit state that may be of use."""
        level: Level = {0: {s: Step(cost, None, -1, -1, False) for s, cost in entries.items()}}
        levels = [level]
        for _ in self._block.atoms:
            level = self._fitting(levels[-1])
            longer: Level = {}
            for mask, states in level.items():
                self._expand(mask, states, longer)
            levels[-1] = level
            levels.append(longer)
        full = self._block.full
        exits = {}
        for state in self._open(levels[-1].get(full, {})):
            entry, trace = _trace(levels, full, state)
            exits[state] = Exit(levels[-1][full][state].cost, entry, trace)
        return BlockResult(exits, self._dropped, self._states)

    def _fitting(self, level: Level) -> Level:
        """The level without dominated or hopeless states, and within the width."""
        kept: Level = {}
        ranked: list[tuple[int, int, State]] = []
        for mask, states in level.items():
            rest = self._ahead[mask][0]
            crossing = self._potentials.crossing(mask)
            bounds = {}
            for state, step in states.items():
                backend, tensors, first, _ = state
                ahead = self._potentials.of_state(crossing, backend, tensors, first)
                bound = step.cost + rest + ahead
                if self._limit is None or bound <= self._limit:
                    bounds[state] = bound
            if not bounds:
                continue
            kept[mask] = self._open({state: states[state] for state in bounds})
            ranked += [(bounds[state], mask, state) for state in kept[mask]]
        self._states += len(ranked)
        if self._width is None or len(ranked) <= self._width:
            return kept
        self._dropped = True
        narrow: Level = {}
        for _, mask, state in heapq.nsmallest(self._width, ranked):
            narrow.setdefault(mask, {})[state] = kept[mask][state]
        return narrow

    def _open(self, states: Mapping[State, Step]) -> dict[State, Step]:
        """States at one ideal that no other one dominates."""
        if len(states) == 1:
            return dict(states)
        kept: dict[State, Step] = {}
        rivals: list[tuple[State, int]] = []
        for state, step in sorted(states.items(), key=lambda item: (item[1].cost, item[0])):
            if any(self._dominates(rival, cost, state, step.cost) for rival, cost in rivals):
                continue
            kept[state] = step
            if len(rivals) < _RIVALS:
                rivals.append((state, step.cost))
                if state.backend != CLOSED:
                    more, closed = self._close(state)
                    rivals.append((closed, step.cost + more))
        return kept

    def _dominates(self, rival: State, cost: int, state: State, other: int) -> bool:
        """Whether going on from a state is never better than from a rival at the same ideal."""
        room = other - cost
        used = rival.used
        if rival.backend != state.backend:
            if rival.backend != CLOSED:
                return False
            room -= self._overhead[state.backend]
        if room < 0 or rival.first > state.first or used != state.used:
            return False
        differing = rival.tensors ^ state.tensors
        slot = 0
        while differing:
            if differing & SLOT_MASK:
                use = self._block.uses[slot]
                room -= use.kind.lag(
                    state.backend,
                    rival.tensors >> use.shift & SLOT_MASK,
                    state.tensors >> use.shift & SLOT_MASK,
                    use.readers,
                )
                if room < 0:
                    return False
            differing >>= SLOT_BITS
            slot += 1
        return True

    def _close(self, state: State) -> tuple[int, State]:
        """The cost of closing the open segment, and the state then."""
        cost, left, slot = 0, 0, 0
        tensors = state.tensors
        while tensors:
            code = tensors & SLOT_MASK
            if code:
                use = self._block.uses[slot]
                more, code = use.kind.close(state.backend, code)
                cost += more
                left |= code << use.shift
            tensors >>= SLOT_BITS
            slot += 1
        return cost, State(CLOSED, left, 0, state.used)

    def _expand(self, mask: int, states: Mapping[State, Step], longer: Level) -> None:
        """Add every ready atom to every state of an ideal."""
        closed: dict[State, tuple[int, State]] = {}
        for state, step in states.items():
            more, after = (0, state) if state.backend == CLOSED else self._close(state)
            total = step.cost + more
            if after not in closed or total < closed[after][0]:
                closed[after] = (total, state)
        for atom in self._ahead[mask][1]:
            done = self._look_ahead(mask, atom)
            target = longer.setdefault(done, {})
            for backend, ways in self._block.ways[atom].items():
                for state, step in states.items():
                    if state.backend == backend and atom >= state.first:
                        origin = (mask, state)
                        self._run(atom, done, ways, state, step.cost, origin, False, target)
                for after, (total, state) in closed.items():
                    opened = State(backend, after.tensors, 0, after.used)
                    total += self._overhead[backend]
                    self._run(atom, done, ways, opened, total, (mask, state), True, target)

    def _look_ahead(self, mask: int, atom: int) -> int:
        """Note what is ahead after running a ready atom, and give the ideal then."""
        done = mask | 1 << atom
        if done not in self._ahead:
            rest, ready = self._ahead[mask]
            preds = self._block.preds
            freed = [succ for succ in self._block.succs[atom] if not preds[succ] & ~done]
            left = tuple(other for other in ready if other != atom)
            self._ahead[done] = (rest - self._potentials.least(atom), (*left, *freed))
        return done

    def _run(
        self,
        atom: int,
        done: int,
        ways: list[tuple[int, Way]],
        state: State,
        base: int,
        origin: tuple[int, State],
        opens: bool,
        target: dict[State, Step],
    ) -> None:
        """Run an atom in the open segment, each way, and note the states reached."""
        backend = state.backend
        left_out = ~done & self._capable[backend] & (1 << atom) - 1
        first = left_out.bit_length()
        for number, way in ways:
            results = [(base + way.cost, state.tensors)]
            for use in self._block.inputs[atom]:
                shift = use.shift
                fate = _fate(use, done)
                longer = []
                for cost, tensors in results:
                    code = tensors >> shift & SLOT_MASK
                    for more, after in use.kind.acquire(backend, code, way.reads, fate):
                        longer.append((cost + more, tensors ^ (code ^ after) << shift))
                results = longer
            for use in self._block.outputs[atom]:
                made = use.kind.made(way.writes, _fate(use, done)) << use.shift
                results = [(cost, tensors | made) for cost, tensors in results]
            for cost, tensors in results:
                after_state = State(backend, tensors, first, state.used)
                known = target.get(after_state)
                if known is None or cost < known.cost:
                    target[after_state] = Step(cost, origin, atom, number, opens)


def _fate(use: Use, done: int) -> int:
    """What becomes of a tensor once the atoms in the mask are done."""
    if use.after or use.users & ~done:
        return KEEP
    return DELIVER if use.output else DROP


def _trace(levels: list[Level], mask: int, state: State) -> tuple[State, Trace]:
    steps = []
    for level in reversed(levels[1:]):
        step = level[mask][state]
        steps.append((step.atom, step.way, step.opens))
        assert step.before is not None
        mask, state = step.before
    return state, tuple(reversed(steps))
