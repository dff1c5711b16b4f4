"""Shortest paths over the ideals of one block, atom by atom.

A state is a set of atoms done (an ideal), the backend of the open segment, and the code of every
tensor that still matters (see `problem`). A step adds a ready atom, either to the open segment or
after closing it and opening another. Any legal plan is such a path, and its cost the path's.

States that cannot lead to a better plan are dropped:

* at an ideal, going on from the cheapest state with everything in memory costs at most an overhead
  and some reads more than going on from any other state; what is behind by more is dominated;
* with a known cost to get through the block, a state is hopeless if the least that its remaining
  atoms cost brings it above that by more than states at the end of the block can differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .blocks import Block, Use
from .problem import PENDING, Problem, Way

CLOSED = -1


class State(NamedTuple):
    """What matters of a path at an ideal.

    backend: of the open segment, CLOSED for none. tensors: 4 bits per slot of the block.
    used: what constraints count: delegate calls, and backends by shared constant.
    """

    backend: int
    tensors: int
    used: int


class Step(NamedTuple):
    """How a state was reached: the atom added last, its way, and whether it opened a segment."""

    cost: int
    before: tuple[int, State] | None
    atom: int
    way: int
    opens: bool


Trace = tuple[tuple[int, int, bool], ...]


class Exit(NamedTuple):
    """A state after a block: its cost, the state before the block, and (atom, way, opens) each."""

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
    """Searches one block; `width` limits how many states are kept per number of atoms done."""

    def __init__(self, problem: Problem, block: Block, width: int | None) -> None:
        self._problem = problem
        self._block = block
        self._width = width
        self._overhead = problem.overhead
        self._backends = range(len(problem.overhead))
        self._cheapest = [
            min(way.cost for ways in row.values() for _, way in ways) for row in block.ways
        ]
        everything = tuple(atom for atom, preds in enumerate(block.preds) if not preds)
        # By ideal: the least that what remains costs, and the atoms that are ready.
        self._ahead: dict[int, tuple[int, tuple[int, ...]]] = {0: (sum(self._cheapest), everything)}
        self._closings: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._limit: int | None = None
        self._dropped = False
        self._states = 0

    def run(self, entries: Mapping[State, int], limit: int | None = None) -> BlockResult:
        """Find the best path from any entry to every exit state.

        limit: cost above which (with the cheapest costs of what remains) a path is of no use.
        """
        self._limit = limit
        self._dropped = False
        start = {state: Step(cost, None, -1, -1, False) for state, cost in entries.items()}
        levels: list[dict[int, dict[State, Step]]] = [{0: start}]
        for _ in self._block.atoms:
            level: dict[int, dict[State, Step]] = {}
            for mask, states in self._fitting(levels[-1]).items():
                self._expand(mask, states, level)
            levels.append(level)
        exits = {}
        for state, step in levels[-1].get(self._block.full, {}).items():
            entry, trace = _trace(levels, self._block.full, state)
            exits[state] = Exit(step.cost, entry, trace)
        return BlockResult(exits, self._dropped, self._states)

    def _fitting(self, level: dict[int, dict[State, Step]]) -> dict[int, dict[State, Step]]:
        count = sum(len(states) for states in level.values())
        self._states += count
        if self._width is None or count <= self._width:
            return level
        self._dropped = True
        ranked = sorted(
            (step.cost + self._ahead[mask][0], mask, state)
            for mask, states in level.items()
            for state, step in states.items()
        )
        kept: dict[int, dict[State, Step]] = {}
        for _, mask, state in ranked[: self._width]:
            kept.setdefault(mask, {})[state] = level[mask][state]
        return kept

    def _look_ahead(self, mask: int, atom: int) -> int:
        """Note what is ahead after running a ready atom, and give the ideal then."""
        done = mask | 1 << atom
        if done not in self._ahead:
            rest, ready = self._ahead[mask]
            preds = self._block.preds
            freed = [succ for succ in self._block.succs[atom] if not preds[succ] & ~done]
            left = tuple(other for other in ready if other != atom)
            self._ahead[done] = (rest - self._cheapest[atom], (*left, *freed))
        return done

    def _expand(
        self, mask: int, states: dict[State, Step], level: dict[int, dict[State, Step]]
    ) -> None:
        closed = self._close_all(mask, states)
        for atom in self._ahead[mask][1]:
            done = self._look_ahead(mask, atom)
            target = level.setdefault(done, {})
            bound = None if self._limit is None else self._limit - self._ahead[done][0]
            ways = self._block.ways[atom]
            for state, step in states.items():
                for number, way in ways.get(state.backend, ()):
                    for cost, after in self._run(atom, done, way, state):
                        total = step.cost + cost
                        if bound is not None and total > bound:
                            continue
                        known = target.get(after)
                        if known is None or total < known.cost:
                            target[after] = Step(total, (mask, state), atom, number, False)
            for state, (base, origin) in closed.items():
                for backend, options in ways.items():
                    opened = State(backend, state.tensors, state.used)
                    for number, way in options:
                        for cost, after in self._run(atom, done, way, opened):
                            total = base + cost + self._overhead[backend]
                            if bound is not None and total > bound:
                                continue
                            known = target.get(after)
                            if known is None or total < known.cost:
                                target[after] = Step(total, (mask, origin), atom, number, True)

    def _close_all(self, mask: int, states: dict[State, Step]) -> dict[State, tuple[int, State]]:
        closed: dict[State, tuple[int, State]] = {}
        for state, step in states.items():
            for cost, tensors in self._close(state.backend, state.tensors):
                after = State(CLOSED, tensors, state.used)
                total = step.cost + cost
                if after not in closed or total < closed[after][0]:
                    closed[after] = (total, state)
        return closed

    def _close(self, backend: int, tensors: int) -> list[tuple[int, int]]:
        """Costs and codes after closing the open segment, one per choice of layouts."""
        if backend == CLOSED:
            return [(0, tensors)]
        key = (backend, tensors)
        if key not in self._closings:
            results = [(0, tensors)]
            for slot, kind in enumerate(self._block.kinds):
                code = tensors >> 4 * slot & 15
                if not code & 3:
                    continue
                results = [
                    (cost + more, left ^ (code ^ after) << 4 * slot)
                    for cost, left in results
                    for more, after in kind.close(backend, code)
                ]
            self._closings[key] = results
        return self._closings[key]

    def _run(self, atom: int, done: int, way: Way, state: State) -> list[tuple[int, State]]:
        """Costs and states after running an atom in the open segment."""
        backend = way.backend
        results = [(way.cost, state.tensors)]
        for use in self._block.inputs[atom]:
            shift = use.shift
            is_last = not use.after and not use.users & ~done
            longer = []
            for cost, tensors in results:
                code = tensors >> shift & 15
                for more, after in use.kind.acquire(backend, code, way.reads):
                    if is_last:
                        after = _released(use, after)
                    longer.append((cost + more, tensors ^ (code ^ after) << shift))
            results = longer
        for use in self._block.outputs[atom]:
            code = 1 << use.kind.form[way.writes]
            if not use.users and not use.after:
                code = _released(use, code)
            results = [(cost, tensors | code << use.shift) for cost, tensors in results]
        return [(cost, State(backend, tensors, state.used)) for cost, tensors in results]


def _released(use: Use, code: int) -> int:
    """The code of a tensor that no atom wants any more."""
    if use.output and code and not code >> 2:
        return code | PENDING << 2
    return 0


def _trace(
    levels: list[dict[int, dict[State, Step]]], mask: int, state: State
) -> tuple[State, Trace]:
    steps = []
    number = len(levels) - 1
    while number:
        step = levels[number][mask][state]
        steps.append((step.atom, step.way, step.opens))
        assert step.before is not None
        mask, state = step.before
        number -= 1
    return state, tuple(reversed(steps))
