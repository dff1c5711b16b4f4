"""The cheapest plan, by shortest paths over ideals, block by block.

Exact unless a width is given and reached (see `beam`).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from .blocks import Block, BlockBuilder, find_cuts
from .elements import Flow
from .plan import Segment
from .problem import Problem
from .search import CLOSED, BlockResult, BlockSearch, State

# Blocks of fewer atoms are searched at once, without a first rough search for a limit.
_SMALL_BLOCK = 5
_ROUGH_WIDTH = 24


@dataclass(frozen=True)
class Found:
    """The end of a search: legal segments, the flow of every atom (by id), the cost in ns.

    dropped: states were dropped, so that there may be something cheaper. states: how many were
    looked at, without those of blocks that had been met before.
    """

    segments: tuple[Segment, ...]
    flows: Mapping[str, Flow]
    cost_ns: float
    dropped: bool
    states: int


def find_plan(problem: Problem, width: int | None = None) -> Found:
    """Search a whole problem; width None looks at everything."""
    return _Walk(problem, width).run()


class _Walk:
    """One walk over all blocks, then back along the cheapest path."""

    def __init__(self, problem: Problem, width: int | None) -> None:
        self._problem = problem
        self._width = width
        self._known: dict[Hashable, BlockResult] = {}
        self._dropped = False
        self._states = 0

    def run(self) -> Found:
        problem = self._problem
        cuts = find_cuts(problem.preds, problem.succs)
        builder = BlockBuilder(problem)
        entries: dict[State, int] = {State(CLOSED, 0, 0): 0}
        carried: list[int] = []
        passed: list[tuple[Block, BlockResult, dict[State, State]]] = []
        base = 0
        for start, stop in itertools.pairwise(cuts):
            block = builder.build(start, stop, carried)
            base += min(entries.values())
            result = self._search(block, entries)
            carried, entries, renamed = _carry(block, result)
            passed.append((block, result, renamed))
        return self._finish(passed, entries, carried, base)

    def _search(self, block: Block, entries: dict[State, int]) -> BlockResult:
        least = min(entries.values())
        relative = {state: cost - least for state, cost in entries.items()}
        key = (block.signature, frozenset(relative.items()))
        result = self._known.get(key)
        if result is None:
            search = BlockSearch(self._problem, block, self._width)
            limit = None
            if len(block.atoms) >= _SMALL_BLOCK:
                rough = BlockSearch(self._problem, block, _ROUGH_WIDTH).run(relative)
                limit = min(each.cost for each in rough.exits.values()) + self._slack(block)
            result = search.run(relative, limit)
            self._states += result.states
            self._known[key] = result
        self._dropped |= result.dropped
        return result

    def _slack(self, block: Block) -> int:
        """How much more the rest can cost from one exit of a block than from another.

        From any exit one can close the segment, open the one that the other goes on with, and read
        from memory what the other has inside.
        """
        slack = max(self._problem.overhead)
        for slot in block.carried_out:
            kind = block.kinds[slot]
            later = len(self._problem.consumers[block.tensors[slot]])
            slack += max(kind.max_read) + max(kind.max_write) + later * kind.max_mismatch
        return slack

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
                code = state.tensors >> 4 * slot & 15
                if code & 3:
                    cost += min(move[0] for move in kind.close(state.backend, code))
            return cost

        state = min(entries, key=lambda each: (total(each), each))
        cost = base + total(state)
        steps: list[tuple[int, int, bool]] = []
        for block, result, renamed in reversed(passed):
            end = result.exits[renamed[state]]
            steps += [(block.atoms[atom], way, opens) for atom, way, opens in reversed(end.trace)]
            state = end.entry
        segments, flows = _as_segments(problem, steps[::-1])
        return Found(segments, flows, problem.in_ns(cost), self._dropped, self._states)


def _carry(
    block: Block, result: BlockResult
) -> tuple[list[int], dict[State, int], dict[State, State]]:
    """The tensors that matter after a block, its exit states in terms of them, and the way back."""
    seen = 0
    for state in result.exits:
        seen |= state.tensors
    slots = [slot for slot in block.carried_out if seen >> 4 * slot & 15]
    entries: dict[State, int] = {}
    renamed: dict[State, State] = {}
    for state, end in result.exits.items():
        tensors = 0
        for place, slot in enumerate(slots):
            tensors |= (state.tensors >> 4 * slot & 15) << 4 * place
        after = State(state.backend, tensors, state.used)
        entries[after] = end.cost
        renamed[after] = state
    return [block.tensors[slot] for slot in slots], entries, renamed


def _as_segments(
    problem: Problem, steps: list[tuple[int, int, bool]]
) -> tuple[tuple[Segment, ...], dict[str, Flow]]:
    graph = problem.graph
    flows: dict[str, Flow] = {}
    groups: list[tuple[int, list[int]]] = []
    for atom, way, opens in steps:
        option = problem.options[atom][way]
        flows[graph.atoms[problem.atoms[atom]].id] = option.flow
        if opens:
            groups.append((option.backend, []))
        groups[-1][1].append(atom)
    segments = []
    for number, atoms in groups:
        backend = graph.backends[number]
        ids = tuple(graph.atoms[problem.atoms[atom]].id for atom in sorted(atoms))
        segments.append(Segment(backend.name, ids, backend.is_delegate))
    return tuple(segments), flows
