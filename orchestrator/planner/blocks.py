"""Cuts a problem into blocks that every execution order runs one after another.

A cut is a set of atoms that every order runs first: the only ideal of its size. Between cuts the
search needs to remember nothing but the tensors that cross them, and blocks that look the same
(the layers of a network) can share one search.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .problem import Problem, TensorClass, Way

#: By backend: the ways to run an atom there, as (number of the way, way).
WaysByBackend = dict[int, list[tuple[int, Way]]]


def find_cuts(preds: Sequence[Sequence[int]], succs: Sequence[Sequence[int]]) -> list[int]:
    """Sizes of all cuts, from 0 to the number of atoms; atoms are in topological order.

    After a prefix is a cut if each of its maximal atoms feeds each atom that is ready.
    """
    count = len(preds)
    missing = [len(row) for row in preds]
    unused = [len(row) for row in succs]
    ready = {atom for atom in range(count) if not missing[atom]}
    maximal: set[int] = set()
    cuts = [0]
    for atom in range(count):
        ready.discard(atom)
        for succ in succs[atom]:
            missing[succ] -= 1
            if not missing[succ]:
                ready.add(succ)
        # Maximal in the prefix: not followed by anything in it.
        maximal.difference_update(preds[atom])
        maximal.add(atom)
        for pred in preds[atom]:
            unused[pred] -= 1
        if all(_feeds_all(succs[last], unused[last], ready) for last in maximal):
            cuts.append(atom + 1)
    return cuts


def _feeds_all(succs: Sequence[int], unused: int, ready: set[int]) -> bool:
    return unused >= len(ready) and ready.issubset(succs)


@dataclass(frozen=True)
class Use:
    """One atom's use of one tensor, by its place in the block.

    shift: of the tensor's code within a state. users: mask of the block's atoms that read it.
    after: whether something reads it after the block. output: whether the caller gets it.
    """

    shift: int
    kind: TensorClass
    users: int
    after: bool
    output: bool


@dataclass(frozen=True)
class Block:
    """Consecutive atoms with everything that a search over them needs, in local numbers.

    atoms: problem indices. tensors: graph indices by slot, those carried in come first.
    carried_out: slots that may matter after the block. signature: equal for blocks that only
    differ in what their atoms and tensors are called.
    """

    atoms: Sequence[int]
    preds: list[int]
    succs: list[list[int]]
    ways: list[WaysByBackend]
    inputs: list[list[Use]]
    outputs: list[list[Use]]
    tensors: list[int]
    kinds: list[TensorClass]
    carried_out: list[int]
    signature: Hashable

    @property
    def full(self) -> int:
        """The mask of all atoms."""
        return (1 << len(self.atoms)) - 1


class BlockBuilder:
    """Makes blocks from ranges of a problem's atoms."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._ways: list[WaysByBackend] = []
        numbers: dict[Hashable, int] = {}
        self._ways_number = []
        for row in problem.ways:
            grouped: WaysByBackend = {}
            for number, way in enumerate(row):
                grouped.setdefault(way.backend, []).append((number, way))
            self._ways.append(grouped)
            self._ways_number.append(numbers.setdefault(row, len(numbers)))

    def build(self, start: int, stop: int, carried: Sequence[int]) -> Block:
        """The block of atoms start..stop-1; `carried` are graph tensors that states hold."""
        problem = self._problem
        atoms = range(start, stop)
        slots = {tensor: slot for slot, tensor in enumerate(carried)}
        for atom in atoms:
            for tensor in (*problem.inputs[atom], *problem.outputs[atom]):
                slots.setdefault(tensor, len(slots))
        uses = {tensor: self._use(tensor, slot, start, stop) for tensor, slot in slots.items()}
        inputs = [[uses[tensor] for tensor in problem.inputs[atom]] for atom in atoms]
        outputs = [[uses[tensor] for tensor in problem.outputs[atom]] for atom in atoms]
        preds = [sum(1 << p - start for p in problem.preds[a] if p >= start) for a in atoms]
        succs = [[succ - start for succ in problem.succs[a] if succ < stop] for a in atoms]
        signature = (
            tuple(self._ways_number[start:stop]),
            tuple(preds),
            tuple(tuple(use.shift for use in row) for row in inputs),
            tuple(tuple(use.shift for use in row) for row in outputs),
            tuple((id(u.kind), u.users, u.after, u.output) for u in uses.values()),
            len(carried),
        )
        return Block(
            atoms=atoms,
            preds=preds,
            succs=succs,
            ways=self._ways[start:stop],
            inputs=inputs,
            outputs=outputs,
            tensors=list(slots),
            kinds=[problem.classes[tensor] for tensor in slots],
            carried_out=[
                slot for tensor, slot in slots.items() if uses[tensor].after or uses[tensor].output
            ],
            signature=signature,
        )

    def _use(self, tensor: int, slot: int, start: int, stop: int) -> Use:
        users = self._problem.consumers[tensor]
        return Use(
            shift=4 * slot,
            kind=self._problem.classes[tensor],
            users=sum(1 << user - start for user in users if start <= user < stop),
            after=bool(users) and users[-1] >= stop,
            output=self._problem.graph.tensors[tensor].is_output,
        )
