"""Weights that several methods use, of which the file is to have one copy.

Delegates store weights as their kernels read them, each in its own way. What methods hold in one
backend the file has once; where they use two, the file and the memory have it twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.candidates import Candidates
from orchestrator.graph.queries import mutated_buffers
from orchestrator.graph.schemes import stored_bytes
from orchestrator.planner import Constraints, CostGraph, Exclude, Plan

_LEAST_BYTES = 1 << 16
"""Smaller weights may be anywhere: what uses them need not go where a method before has them."""


@dataclass(frozen=True)
class _Held:
    """A weight inside a delegate; nbytes: what of it is stored."""

    backend: str
    nbytes: int


class SharedWeights:
    """What delegates hold in the methods of a program, which are planned in its order."""

    def __init__(
        self, programs: Mapping[str, ExportedProgram], *, keeps_together: bool = False
    ) -> None:
        """Find the weights that several methods have.

        programs: as they were exported. keeps_together: whether a method is to have weights in the
            delegate that methods before it use.
        """
        self._order = tuple(programs)
        self._shared = _in_several(programs)
        self._keeps_together = keeps_together
        self._held: dict[str, dict[str, _Held]] = {}

    def constrained(
        self,
        method: str,
        ep: ExportedProgram,
        candidates: Candidates,
        graph: CostGraph,
        asked: Constraints,
    ) -> tuple[Exclude, ...]:
        """Return what keeps weights in the delegates in which methods before have them.

        An atom is left alone whose weights are in several, or in one that cannot run it here or
        that `asked`, the user's constraints, keep it from.
        """
        before = self._before(method)
        if not self._keeps_together or not before:
            return ()
        pinned = {atom for pin in asked.pins for atom in pin.atoms}
        kept_off = {
            (atom, name)
            for exclude in asked.excludes
            for atom in exclude.atoms
            for name in exclude.backends
        }
        found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for atom in candidates.atoms:
            names = {name for _, name in self._used(ep, candidates, atom.nodes, atom.backends)}
            holders = {before[name].backend for name in names & before.keys()}
            if len(holders) != 1 or atom.id in pinned:
                continue
            (holder,) = holders
            if not graph.capable(atom.id, holder) or (atom.id, holder) in kept_off:
                continue
            able = (each.name for each in graph.backends if graph.capable(atom.id, each.name))
            others = tuple(name for name in able if name != holder)
            if others:
                found.setdefault((holder, others), []).append(atom.id)
        return tuple(
            Exclude(f"weights that {holder} holds for another method", tuple(atoms), others)
            for (holder, others), atoms in found.items()
        )

    def learn(self, method: str, ep: ExportedProgram, candidates: Candidates, plan: Plan) -> None:
        """Note what a method's plan has delegates hold."""
        self._held[method] = {
            name: _Held(segment.backend, stored_bytes(node))
            for segment in plan.partitions
            for node, name in self._used(
                ep, candidates, candidates.nodes(segment.atoms), (segment.backend,)
            )
        }

    def notes(self, method: str) -> Iterator[str]:
        """Yield what a method's report says about its weights."""
        held, before = self._held.get(method, {}), self._before(method)
        pairs: dict[tuple[str, str], list[int]] = {}
        for name in held.keys() & before.keys():
            pair = (before[name].backend, held[name].backend)
            pairs.setdefault(pair, []).append(held[name].nbytes)
        for (theirs, ours), sizes in sorted(pairs.items()):
            what = "1 weight" if len(sizes) == 1 else f"{len(sizes)} weights"
            what += f" ({sum(sizes) / 1e6:.1f} MB)"
            others = ", ".join(name for name in self._order if name in self._held.keys() - {method})
            if ours == theirs:
                yield f"{what} shared with {others}: {ours} holds them for both, once."
            else:
                yield (
                    f"{what} shared with {others} are there twice: {theirs} holds them there, "
                    f"{ours} here."
                )

    def _before(self, method: str) -> dict[str, _Held]:
        """Return what the methods before this one hold, by weight."""
        result: dict[str, _Held] = {}
        for other in self._order[: self._order.index(method)]:
            for name, held in self._held.get(other, {}).items():
                result.setdefault(name, held)
        return result

    def _used(
        self,
        ep: ExportedProgram,
        candidates: Candidates,
        nodes: Iterable[Node],
        backends: Iterable[str],
    ) -> Iterator[tuple[Node, str]]:
        """Yield the shared weights that delegates would hold for some nodes, with their names."""
        wanted = [candidates.constants[name] for name in backends]
        signature, states = ep.graph_signature, mutated_buffers(ep)
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in nodes:
            for constant in {each for by_node in wanted for each in by_node.get(node, ())} - states:
                name = names.get(constant.name, "")
                if _exported_name(name) in self._shared and stored_bytes(constant) >= _LEAST_BYTES:
                    yield constant, name


# A tensor of several others is taken apart as torch.nn.utils.parametrize names it.
_PART = re.compile(r"parametrizations\.|\.original\d*(?=\.|$)")


def _exported_name(name: str) -> str:
    """Return the name of a weight in the program that was exported."""
    return _PART.sub("", name)


def _in_several(programs: Mapping[str, ExportedProgram]) -> frozenset[str]:
    """Return the names under which several methods have one and the same tensor.

    Programs in the edge dialect have no values where they are partitioned.
    """
    first: dict[str, tuple[str, torch.Tensor]] = {}
    found = set()
    for method, program in programs.items():
        for name, value in program.state_dict.items():
            where, known = first.setdefault(name, (method, value))
            if where != method and (known is value or _is_in_place_of(known, value)):
                found.add(name)
    return frozenset(found)


def _is_in_place_of(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are one memory; those made of other tensors have none of their own."""
    return one.data_ptr() == other.data_ptr() != 0 and one.shape == other.shape
