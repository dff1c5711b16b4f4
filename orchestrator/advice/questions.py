"""What to ask the planner about one program: rejected ops and modules, in planner terms."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from torch.fx import Node

from orchestrator.advice.what_if import Module, Questions, Rejected
from orchestrator.backends.candidates import Atom, Candidates
from orchestrator.backends.patterns import matching_atoms
from orchestrator.graph.queries import is_getitem, module_path, op_name
from orchestrator.planner import CostGraph

# A number as a part of a path.
_NUMBER = re.compile(r"(^|\.)\d+(?=\.|$)")
Estimate = Callable[[Sequence[Node], str], float]

# Modules that hold this part of all atoms at least are worth a question.
_LEAST_PART = 0.04


def questions(candidates: Candidates, graph: CostGraph, estimate: Estimate) -> Questions:
    """Collect what is worth asking about one program.

    estimate: supposes what nodes would cost on a delegate that does not take them yet, in ns.
    """
    return Questions(
        tuple(rejected_groups(candidates, graph, estimate)), tuple(modules(candidates))
    )


def rejected_groups(
    candidates: Candidates, graph: CostGraph, estimate: Estimate
) -> Iterator[Rejected]:
    """Group what backends reject by backend, op and reason.

    Only atoms count that the reason alone keeps from the backend. They are supposed to cost there
    what the cheapest other delegate asks; where none takes them, what `estimate` says.
    """
    rejections = {(each.backend, each.node): each for each in candidates.rejections}
    groups: dict[tuple[str, str, str, str], dict[str, float]] = defaultdict(dict)
    delegates = [backend.name for backend in graph.backends if backend.is_delegate]
    for atom in candidates.atoms:
        for backend in delegates:
            if backend in atom.backends:
                continue
            nodes = [node for node in atom.nodes if not is_getitem(node)]
            found = {
                (op_name(node), each.reason, each.remedy)
                for node in nodes
                if (each := rejections.get((backend, node))) is not None
            }
            if len(found) == 1:
                supposed = _supposed(atom, backend, graph, estimate)
                ((op, reason, remedy),) = found
                groups[backend, op, reason, remedy][atom.id] = supposed
    for (backend, op, reason, remedy), by_atom in groups.items():
        yield Rejected(backend, op, reason, remedy, by_atom)


def _supposed(atom: Atom, backend: str, graph: CostGraph, estimate: Estimate) -> float:
    prices = [
        option.price.ns
        for option in graph.options[graph.atom_index[atom.id]]
        if option.price is not None and graph.backends[option.backend].is_delegate
    ]
    return min(prices) if prices else estimate(atom.nodes, backend)


def modules(candidates: Candidates) -> Iterator[Module]:
    """Name the modules, and groups of modules that differ in numbers only ("blocks.*.mlp").

    Those that are a fair part of the program but not all of it, the largest last, each with all
    that a pin of that name would bind. Of several with the same atoms the outermost counts; one of
    many numbered ones is no question of its own.
    """
    members: Counter[str] = Counter()
    paths: dict[str, set[str]] = defaultdict(set)
    for atom in candidates.atoms:
        for path in _prefixes(module_path(atom.nodes[0])):
            pattern = _NUMBER.sub(r"\1*", path)
            members[pattern] += 1
            paths[pattern].add(path)
    count = len(candidates.atoms)
    least = max(1.0, _LEAST_PART * count)
    distinct: dict[tuple[str, ...], str] = {}
    for pattern, atoms in members.items():  # outer ones come before what is in them
        if not least <= atoms < count:
            continue
        name = pattern if len(paths[pattern]) > 1 else min(paths[pattern])
        bound = matching_atoms(candidates, name)
        if len(bound) < count:
            distinct.setdefault(bound, name)
    for found, name in sorted(distinct.items(), key=lambda item: len(item[0])):
        yield Module(name, found)


def _prefixes(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
