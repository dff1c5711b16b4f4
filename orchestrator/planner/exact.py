"""The cheapest plan, by shortest paths over ideals, block by block.

Exact unless a width is given and reached (see `beam`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from .blocks import Block, BlockBuilder, find_cuts
from .elements import Flow
from .plan import Segment
from .problem import Problem
from .search import CLOSED, JOINED, OPENED, START, BlockResult, BlockSearch, State
from .tensors import SLOT_BITS, SLOT_MASK

# Per number of atoms done, in the first search of a block, which finds limits for the second one.
_ROUGH_WIDTH = 24


@dataclass(frozen=True)
class Found:
    """The end of a search: legal segments, the flow of every atom (by id), the cost in ns.

    segments: None if there is no plan that the constraints allow, or none was found. dropped:
    states were dropped, so that there may be something cheaper. states: how many were looked at,
    without those of blocks that had been met before.
    """

    segments: tuple[Segment, ...] | None
    flows: Mapping[str, Flow]
    cost_ns: float
    dropped: bool
    states: int


def find_plan(problem: Problem, room: int | None = None, width: int = 0) -> Found:
    """Search a whole problem.

    room: how many states may be looked at before only the best `width` are kept per number of
    atoms done (beam search); None for no end, that is, exact.

    `Found.segments` is None if the problem's ledger allows no plan, or none was kept.
    """
    return _Walk(problem, room, width).run()


class _Walk:
    """One walk over all blocks, then back along the cheapest path."""

    def __init__(self, problem: Problem, room: int | None, width: int) -> None:
        self._problem = problem
        self._room = room
        self._width = width
        self._known: dict[Hashable, BlockResult] = {}
        self._dropped = False
        self._states = 0

    def run(self) -> Found:
        problem = self._problem
        cuts = find_cuts(problem.preds, problem.succs, problem.floating)
        builder = BlockBuilder(problem)
        entries: dict[State, int] = {START: 0}
        carried: list[int] = []
        passed: list[tuple[Block, BlockResult, dict[State, State]]] = []
        base = 0
        for start, stop in itertools.pairwise(cuts):
            block = builder.build(start, stop, carried)
            base += min(entries.values())
            result = self._search(block, entries)
            carried, entries, renamed = _carry(block, result)
            passed.append((block, result, renamed))
            if not entries:
                return Found(None, {}, math.inf, self._dropped, self._states)
        return self._finish(passed, entries, carried, base)

    def _search(self, block: Block, entries: dict[State, int]) -> BlockResult:
        least = min(entries.values())
        relative = {state: cost - least for state, cost in entries.items()}
        ledger = self._problem.ledger
        counted = None if ledger is None else ledger.signature(block.atoms)
        key = (block.signature, frozenset(relative.items()), counted)
        if key not in self._known:
            self._known[key] = self._search_anew(block, relative)
        result = self._known[key]
        self._dropped |= result.dropped
        return result

    def _search_anew(self, block: Block, entries: dict[State, int]) -> BlockResult:
        problem = self._problem
        room = None if self._room is None else max(0, self._room - self._states)
        width = _ROUGH_WIDTH if room is None else min(_ROUGH_WIDTH, self._width)
        rough = BlockSearch(problem, block, room=0, width=width).run(entries)
        self._states += rough.states
        if room is not None:
            room = max(0, room - rough.states)
        if not rough.dropped or (room == 0 and width == self._width):
            return rough
        limits = None if problem.ledger is not None else self._limits(block, rough)
        search = BlockSearch(problem, block, room=room, width=self._width, limits=limits)
        result = search.run(entries)
        self._states += result.states
        if result.dropped:
            for state, end in rough.exits.items():
                if state not in result.exits or end.cost < result.exits[state].cost:
                    result.exits[state] = end
        return result

    def _limits(self, block: Block, rough: BlockResult) -> list[int]:
        """By backend, the cost above which ending a block with it is of no use.

        Instead of going on from an exit, one can go on from a known one on the same backend, or
        close the segment of a known one and open another, and make up for the tensors that the
        exit has inside.
        """
        known: list[tuple[int, int, dict[int, int]]] = []
        for state, end in rough.exits.items():
            cost, delivered, codes, closed = end.cost, end.cost, {}, {}
            for slot in block.carried_out:
                use = block.uses[slot]
                codes[slot] = state[1] >> use.shift & SLOT_MASK
                more, closed[slot] = use.kind.close(state[0], codes[slot])
                cost += more
                # The exit may have written what only the caller still wants.
                delivered += 0 if use.after else more
            known.append((state[0], delivered, codes))
            known.append((CLOSED, cost, closed))
        if block.atoms[-1] + 1 == len(self._problem.atoms):
            least = min(cost for backend, cost, _ in known if backend == CLOSED)
            return [least for _ in self._problem.overhead]
        limits = []
        for backend, overhead in enumerate(self._problem.overhead):
            costs = [
                cost + self._catch_up(block, codes, backend) + (overhead if b == CLOSED else 0)
                for b, cost, codes in known
                if b in (CLOSED, backend)
            ]
            limits.append(min(costs))
        return limits

    def _catch_up(self, block: Block, codes: Mapping[int, int], backend: int) -> int:
        """What it costs at most to go on as from any exit with a segment open on a backend."""
        return sum(
            block.uses[slot].kind.worst_lag(
                backend, code, block.uses[slot].exits[backend], block.uses[slot].readers
            )
            for slot, code in codes.items()
            if block.uses[slot].after
        )

    def _finish(
        self,
        passed: list[tuple[Block, BlockResult, dict[State, State]]],
        entries: dict[State, int],
        carried: list[int],
        base: int,
    ) -> Found:
        problem = self._problem
        kinds = [problem.classes[tensor] for tensor in carried]

        def total(state: State) -> int:
            cost = entries[state]
            for slot, kind in enumerate(kinds):
                code = state[1] >> SLOT_BITS * slot & SLOT_MASK
                if code:
                    cost += kind.close(state[0], code)[0]
            return cost

        state = min(entries, key=lambda each: (total(each), each))
        cost = base + total(state)
        steps: list[tuple[int, int, int]] = []
        for block, result, renamed in reversed(passed):
            end = result.exits[renamed[state]]
            steps += [(block.atoms[atom], way, how) for atom, way, how in reversed(end.trace)]
            state = end.entry
        segments, flows = _as_segments(problem, steps[::-1])
        return Found(segments, flows, problem.in_ns(cost), self._dropped, self._states)


def _carry(
    block: Block, result: BlockResult
) -> tuple[list[int], dict[State, int], dict[State, State]]:
    """The tensors that matter after a block, its exit states in terms of them, and the way back."""
    seen = 0
    for state in result.exits:
        seen |= state[1]
    slots = [slot for slot in block.carried_out if seen >> SLOT_BITS * slot & SLOT_MASK]
    entries: dict[State, int] = {}
    renamed: dict[State, State] = {}
    for state, end in result.exits.items():
        tensors = 0
        for place, slot in enumerate(slots):
            code = state[1] >> SLOT_BITS * slot & SLOT_MASK
            tensors |= code << SLOT_BITS * place
        after = (state[0], tensors, 0, state[3])
        entries[after] = end.cost
        renamed[after] = state
    return [block.tensors[slot] for slot in slots], entries, renamed


def _as_segments(
    problem: Problem, steps: list[tuple[int, int, int]]
) -> tuple[tuple[Segment, ...], dict[str, Flow]]:
    graph = problem.graph
    flows: dict[str, Flow] = {}
    groups: list[tuple[int, list[int]]] = []
    after: list[tuple[int, list[int]]] = []  # detached, to come once the open segment closes
    opened = False
    for atom, way, how in steps:
        option = problem.options[atom][way]
        flows[graph.atoms[problem.atoms[atom]].id] = option.flow
        group = (option.backend, [atom])
        if how == JOINED:
            groups[-1][1].append(atom)
        elif how == OPENED:
            groups += [*after, group]
            after, opened = [], True
        elif problem.floating[atom] == "late":
            after.append(group)
        else:  # before the open segment, if there is one yet
            groups.insert(len(groups) - 1 if opened else len(groups), group)
    segments = []
    for number, atoms in groups + after:
        backend = graph.backends[number]
        ids = tuple(graph.atoms[problem.atoms[atom]].id for atom in sorted(atoms))
        segments.append(Segment(backend.name, ids, backend.is_delegate))
    return tuple(segments), flows
