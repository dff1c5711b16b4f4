"""Which segments can run one after another, and how to cut an assignment into such segments.

Segments are legal when the quotient graph (one node per delegate segment, kernels each on their
own) has no cycle. Convexity follows: a path that leaves a segment and comes back is such a cycle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from .cost_graph import CostGraph
from .errors import IllegalPlanError, InfeasibleAtomError
from .plan import Segment
from .pricing import feasible_backends

# Schedules kept while searching for the fewest delegate calls. Two delegates that exhaust each
# other in turn need two; kernels in between and further delegates make the search a beam.
_KEPT_SCHEDULES = 16


def quotient_graph(graph: CostGraph, groups: Iterable[Collection[str]]) -> nx.DiGraph:
    """Contract each group of atoms (ids) to one node, numbered in order; other atoms stay nodes.

    Nodes are group numbers, or ids for atoms in no group.
    """
    node_of: dict[str, int | str] = {atom.id: atom.id for atom in graph.atoms}
    quotient = nx.DiGraph()
    for number, group in enumerate(groups):
        quotient.add_node(number)
        for atom in group:
            node_of[atom] = number
    quotient.add_nodes_from(node_of.values())
    for index, succs in enumerate(graph.succs):
        source = node_of[graph.atoms[index].id]
        targets = (node_of[graph.atoms[succ].id] for succ in succs)
        quotient.add_edges_from((source, target) for target in targets if target != source)
    return quotient


def is_convex(graph: CostGraph, atoms: Collection[str]) -> bool:
    """Whether no path between two of the atoms (ids) leaves the set."""
    quotient = quotient_graph(graph, [atoms])
    return not any(0 in component for component in _cyclic_parts(quotient))


def check_segments(graph: CostGraph, segments: Sequence[Segment]) -> None:
    """Raise IllegalPlanError unless the segments cover each atom once and can run in their order.

    Also refused: an atom on a backend that cannot run it (InfeasibleAtomError).
    """
    seen: dict[str, int] = {}
    for number, segment in enumerate(segments):
        for atom in segment.atoms:
            if atom not in graph.atom_index:
                raise IllegalPlanError(
                    f"segment {number} holds {atom!r}, which is not in the graph."
                )
            if atom in seen:
                raise IllegalPlanError(f"atom {atom!r} is in segments {seen[atom]} and {number}.")
            if not graph.capable(atom, segment.backend):
                raise InfeasibleAtomError(
                    f"atom {atom!r} is in a segment for {segment.backend!r}, which cannot run it."
                )
            seen[atom] = number
    missing = [atom.id for atom in graph.atoms if atom.id not in seen]
    if missing:
        raise IllegalPlanError(f"no segment runs the atom {missing[0]!r} ({len(missing)} in all).")
    delegates = [segment.atoms for segment in segments if segment.is_delegate]
    for component in _cyclic_parts(quotient_graph(graph, delegates)):
        names = sorted(str(node) for node in component)
        raise IllegalPlanError(f"the segments feed each other in a cycle, through {names}.")
    for index, succs in enumerate(graph.succs):
        maker = graph.atoms[index].id
        for user in (graph.atoms[succ].id for succ in succs):
            if seen[user] < seen[maker]:
                raise IllegalPlanError(f"{user!r} runs in an earlier segment than its {maker!r}.")


def _cyclic_parts(quotient: nx.DiGraph) -> list[set[int | str]]:
    return [part for part in nx.strongly_connected_components(quotient) if len(part) > 1]


@dataclass
class _Schedule:
    """A prefix of an execution order: how many preds each atom still waits for, and what ran."""

    missing: list[int]
    ready: list[list[int]]
    left: int
    done: int = 0
    segments: list[tuple[int, list[int]]] = field(default_factory=list)

    def copy(self) -> _Schedule:
        ready = [list(row) for row in self.ready]
        return _Schedule(list(self.missing), ready, self.left, self.done, list(self.segments))


def split_into_segments(graph: CostGraph, assignment: Mapping[str, str]) -> list[Segment]:
    """Cut an assignment (atom id -> backend name) into legal segments, with few delegate calls.

    A call takes everything of its backend that is ready or becomes ready within it: having more
    done never costs a later call, so only the order of the backends is left to choose. Kernels run
    as soon as they can. For two delegates and no kernels the number of calls is the least
    possible; else it is the best of a beam. The answer depends on nothing but the arguments.

    Raises InfeasibleAtomError if an atom is missing or on a backend that cannot run it.
    """
    backend_of = [_assigned(graph, index, assignment) for index in range(len(graph.atoms))]
    start = _Schedule(
        missing=[len(row) for row in graph.preds],
        ready=[[] for _ in graph.backends],
        left=len(graph.atoms),
    )
    for index, count in enumerate(start.missing):
        if count == 0:
            start.ready[backend_of[index]].append(index)
    _run_kernels(graph, backend_of, start)
    beam = [start]
    while all(schedule.left for schedule in beam):
        beam = _one_more_call(graph, backend_of, beam)
    done = next(schedule for schedule in beam if not schedule.left)
    return _as_segments(graph, done.segments)


def _one_more_call(
    graph: CostGraph, backend_of: Sequence[int], beam: Sequence[_Schedule]
) -> list[_Schedule]:
    longer: dict[int, _Schedule] = {}
    for schedule in beam:
        for number, ready in enumerate(schedule.ready):
            if not ready:
                continue
            branch = schedule.copy()
            _run(graph, backend_of, branch, number)
            _run_kernels(graph, backend_of, branch)
            # The same atoms done with as many calls: the same future, so the first one stands.
            longer.setdefault(branch.done, branch)
    furthest = sorted(longer.values(), key=lambda schedule: schedule.left)
    return furthest[:_KEPT_SCHEDULES]


def _run(graph: CostGraph, backend_of: Sequence[int], schedule: _Schedule, number: int) -> None:
    """Run everything on one backend that is ready or becomes so."""
    ran = []
    ready = schedule.ready[number]
    while ready:
        index = ready.pop()
        ran.append(index)
        for succ in graph.succs[index]:
            schedule.missing[succ] -= 1
            if schedule.missing[succ] == 0:
                schedule.ready[backend_of[succ]].append(succ)
    schedule.left -= len(ran)
    schedule.done |= sum(1 << index for index in ran)
    schedule.segments.append((number, ran))


def _run_kernels(graph: CostGraph, backend_of: Sequence[int], schedule: _Schedule) -> None:
    kernels = [b for b, backend in enumerate(graph.backends) if not backend.is_delegate]
    while any(schedule.ready[number] for number in kernels):
        for number in kernels:
            if schedule.ready[number]:
                _run(graph, backend_of, schedule, number)


def _as_segments(graph: CostGraph, runs: Iterable[tuple[int, list[int]]]) -> list[Segment]:
    position = {index: place for place, index in enumerate(graph.order)}
    segments = []
    for number, indices in runs:
        backend = graph.backends[number]
        atoms = tuple(graph.atoms[index].id for index in sorted(indices, key=position.__getitem__))
        segments.append(Segment(backend.name, atoms, backend.is_delegate))
    return segments


def _assigned(graph: CostGraph, index: int, assignment: Mapping[str, str]) -> int:
    atom = graph.atoms[index].id
    name = assignment.get(atom)
    if name is None or name not in graph.backend_index or not graph.capable(atom, name):
        raise InfeasibleAtomError(
            f"atom {atom!r} is assigned to {name!r}; backends that can run it: "
            f"{feasible_backends(graph, index)}."
        )
    return graph.backend_index[name]
