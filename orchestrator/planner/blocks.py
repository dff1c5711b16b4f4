"""Cuts a problem into blocks that every execution order runs one after another.

A cut is a set of atoms that every order runs first: the only ideal of its size. Between cuts the
search needs to remember nothing but the tensors that cross them, and blocks that look the same
(the layers of a network) can share one search.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from .floating import Floating
from .problem import Problem, Way
from .tensors import SLOT_BITS, ExitForms, TensorClass

#: By backend: the ways to run an atom there, as (number of the way, way).
WaysByBackend = dict[int, list[tuple[int, Way]]]


def find_cuts(
    preds: Sequence[Sequence[int]],
    succs: Sequence[Sequence[int]],
    floating: Mapping[int, Floating] = MappingProxyType({}),
) -> list[int]:
    """Sizes of the cuts that one atom ends, with 0 and the number of atoms.

    Atoms are in topological order. A prefix is a cut if each of its maximal atoms feeds each atom
    that is ready. Where more than one atom is maximal, a search would have to remember more.
    Floating atoms are not looked at; they belong to the block of their user or maker.
    """
    count = len(preds)
    missing = [sum(p not in floating for p in row) for row in preds]
    unused = [sum(s not in floating for s in row) for row in succs]
    ready = {atom for atom in range(count) if not missing[atom] and atom not in floating}
    maximal: set[int] = set()
    cuts = [0]
    for atom in range(count):
        if atom in floating:
            if cuts[-1] == atom and floating[atom] == "late":
                cuts[-1] = atom + 1  # follows the atom that ends the block
            continue
        ready.discard(atom)
        for succ in succs[atom]:
            missing[succ] -= 1
            if not missing[succ] and succ not in floating:
                ready.add(succ)
        # Maximal in the prefix: not followed by anything in it.
        maximal.difference_update(preds[atom])
        maximal.add(atom)
        for pred in preds[atom]:
            unused[pred] -= 1
        if len(maximal) == 1 and unused[atom] >= len(ready) and ready.issubset(succs[atom]):
            cuts.append(atom + 1)
    if cuts[-1] != count:
        cuts.append(count)
    return cuts


@dataclass(frozen=True)
class Use:
    """One atom's use of one tensor, by its place in the block.

    shift: of the tensor's code within a state. users: mask of the block's atoms that read it.
    after: whether something reads it after the block. output: whether the caller gets it.
    readers: how many atoms read it in all. exits: by backend, the forms it can have after the
    block inside a segment there; empty unless `after`.
    """

    shift: int
    kind: TensorClass
    users: int
    after: bool
    output: bool
    readers: int
    exits: tuple[ExitForms, ...]


@dataclass(frozen=True)
class Block:
    """Consecutive atoms with everything that a search over them needs, in local numbers.

    atoms: problem indices. tensors: graph indices by slot, those carried in come first.
    carried_out: slots that may matter after the block. last: the atom that every order runs last,
        None if there are several.
    floating: atoms that may run detached, see `floating`.
    signature: equal for blocks that only differ in what their atoms and tensors are called.
    """

    atoms: Sequence[int]
    preds: list[int]
    succs: list[list[int]]
    ways: list[WaysByBackend]
    inputs: list[list[Use]]
    outputs: list[list[Use]]
    tensors: list[int]
    uses: list[Use]
    carried_out: list[int]
    last: int | None
    floating: dict[int, Floating]
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
        self._forms: dict[int, list[list[int]]] = {}
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
        succs = [[succ - start for succ in problem.succs[a] if succ < stop] for a in atoms]
        # What an atom that every order runs last has made is still inside the segment.
        floating = {a - start: problem.floating[a] for a in atoms if a in problem.floating}
        ends = [
            a
            for a, row in enumerate(succs)
            if a not in floating and all(succ in floating for succ in row)
        ]
        last = ends[0] if len(ends) == 1 else None
        uses = {t: self._use(t, slot, start, stop, last) for t, slot in slots.items()}
        inputs = [[uses[tensor] for tensor in problem.inputs[atom]] for atom in atoms]
        outputs = [[uses[tensor] for tensor in problem.outputs[atom]] for atom in atoms]
        preds = [sum(1 << p - start for p in problem.preds[a] if p >= start) for a in atoms]
        signature = (
            tuple(self._ways_number[start:stop]),
            tuple(preds),
            tuple(tuple(use.shift for use in row) for row in inputs),
            tuple(tuple(use.shift for use in row) for row in outputs),
            tuple(uses.values()),
            len(carried),
            tuple(floating.items()),
        )
        return Block(
            atoms=atoms,
            preds=preds,
            succs=succs,
            ways=self._ways[start:stop],
            inputs=inputs,
            outputs=outputs,
            tensors=list(slots),
            uses=list(uses.values()),
            carried_out=[
                slot for tensor, slot in slots.items() if uses[tensor].after or uses[tensor].output
            ],
            last=last,
            floating=floating,
            signature=signature,
        )

    def _use(self, tensor: int, slot: int, start: int, stop: int, last: int | None) -> Use:
        users = self._problem.consumers[tensor]
        before, until = bisect_left(users, start), bisect_left(users, stop)
        after = until < len(users)
        made_last = last is not None and self._problem.producer[tensor] == start + last
        return Use(
            shift=SLOT_BITS * slot,
            kind=self._problem.classes[tensor],
            users=sum(1 << user - start for user in users[before:until]),
            after=after,
            output=self._problem.graph.tensors[tensor].is_output,
            readers=len(users),
            exits=self._exits(tensor, until, made_last) if after else (),
        )

    def _exits(self, tensor: int, until: int, made_last: bool) -> tuple[ExitForms, ...]:
        """What is left inside once the first `until` of the tensor's users are done."""
        if tensor not in self._forms:
            self._forms[tensor] = self._forms_by_users(tensor)
        made, *read = self._forms[tensor]
        users = self._problem.consumers[tensor][:until]
        detached = any(user in self._problem.floating for user in users)
        return tuple(
            ExitForms(one | other if one else None, None if made_last else other, detached)
            for one, other in zip(made, read[until], strict=True)
        )

    def _forms_by_users(self, tensor: int) -> list[list[int]]:
        """By backend: the forms it is made in; then those read by the first 0, 1, 2, ... users."""
        problem = self._problem
        form = problem.classes[tensor].form
        made = [0 for _ in problem.overhead]
        maker = problem.producer[tensor]
        for way in () if maker is None else problem.ways[maker]:
            made[way.backend] |= 1 << form[way.writes]
        rows = [made, [0 for _ in problem.overhead]]
        for user in problem.consumers[tensor]:
            read = list(rows[-1])
            for way in problem.ways[user]:
                read[way.backend] |= 1 << form[way.reads]
            rows.append(read)
        return rows
