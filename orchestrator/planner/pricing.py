"""What given segments cost: the one definition of a plan's price, apart from any solver.

Solvers search with their own bookkeeping; whatever they find is priced here again, and tests hold
the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cost_graph import CostGraph, Option
from .elements import Flow, Layout, Price, Transfer
from .errors import InfeasibleAtomError
from .plan import CostBreakdown, Plan, Segment, SegmentCost
from .spreads import add_spreads


@dataclass
class _Tally:
    atoms: list[float] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)
    overhead: float = 0.0
    read: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    convert: list[float] = field(default_factory=list)

    def freeze(self) -> SegmentCost:
        return SegmentCost(
            atoms_ns=math.fsum(self.atoms),
            overhead_ns=self.overhead,
            read_ns=math.fsum(self.read),
            write_ns=math.fsum(self.write),
            convert_ns=math.fsum(self.convert),
            spreads=add_spreads(self.prices),
        )


def price_plan(
    graph: CostGraph,
    segments: Sequence[Segment],
    *,
    solver: str,
    flows: Mapping[str, Flow] | None = None,
    lower_bound_ns: float | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Price segments that are already legal, with the best layout in memory for every tensor.

    flows: the layouts that atoms compute in. None picks them one atom at a time, in topological
    order, which is a good choice but not always the best one.

    Raises InfeasibleAtomError if a segment holds an atom that its backend cannot run.
    """
    options = _chosen_options(graph, segments, flows)
    where = {
        graph.atom_index[atom]: number
        for number, segment in enumerate(segments)
        for atom in segment.atoms
    }
    tallies = [_Tally() for _ in segments]
    unknown = []
    for number, segment in enumerate(segments):
        if segment.is_delegate:
            backend = graph.backends[graph.backend_index[segment.backend]]
            tallies[number].overhead = backend.call_overhead_ns
        for atom in segment.atoms:
            price = options[graph.atom_index[atom]].price
            if price is None:
                unknown.append(atom)
                continue
            tallies[number].atoms.append(price.ns)
            tallies[number].prices.append(price)
    layouts = {}
    for tensor in range(len(graph.tensors)):
        layout = _price_tensor(graph, tensor, where, options, tallies)
        if layout is not None:
            layouts[graph.tensors[tensor].id] = layout
    return Plan(
        segments=tuple(segments),
        flows={atom.id: options[index].flow for index, atom in enumerate(graph.atoms)},
        layouts=layouts,
        cost=CostBreakdown(tuple(tally.freeze() for tally in tallies), tuple(unknown)),
        solver=solver,
        lower_bound_ns=lower_bound_ns,
        notes=tuple(notes),
    )


def _price_tensor(
    graph: CostGraph,
    tensor: int,
    where: Mapping[int, int],
    options: Mapping[int, Option],
    tallies: Sequence[_Tally],
) -> Layout | None:
    """Book one tensor's boundary costs; give its layout in memory, None if it never gets there."""
    spec = graph.tensors[tensor]
    source = graph.producer[tensor]
    wanted: dict[int, set[Layout]] = {}
    for user in graph.consumers[tensor]:
        form = spec.form(options[user].flow.reads)
        wanted.setdefault(where[user], set()).add(form)
    made_in = None if source is None else where[source]
    inside: set[Layout] = set()
    if source is not None and made_in is not None:
        transfer = graph.transfer(tensor, options[source].backend)
        made = spec.form(options[source].flow.writes)
        inside = {made} | wanted.pop(made_in, set())
        tallies[made_in].convert.append(transfer.convert_ns * (len(inside) - 1))
    if not wanted and not spec.is_output:
        return None

    def backend_of(segment: int) -> int:
        users = (user for user in graph.consumers[tensor] if where[user] == segment)
        return options[next(users)].backend

    readers = {segment: graph.transfer(tensor, backend_of(segment)) for segment in wanted}
    best: tuple[float, Layout, dict[int, float], float] | None = None
    for layout in spec.allowed_in_memory():
        write = min((transfer.write(form, layout) for form in inside), default=0.0)
        reads = {seg: acquire_ns(readers[seg], layout, forms) for seg, forms in wanted.items()}
        total = math.fsum((write, *reads.values()))
        if best is None or total < best[0]:
            best = (total, layout, reads, write)
    assert best is not None  # a tensor has at least one layout
    _, layout, reads, write = best
    if made_in is not None:
        tallies[made_in].write.append(write)
    for segment, cost in reads.items():
        tallies[segment].read.append(cost)
    return layout


def acquire_ns(transfer: Transfer, memory: Layout, forms: set[Layout]) -> float:
    """Cheapest way for a segment to get a tensor from memory in all the wanted forms."""
    if len(forms) == 1:
        return transfer.read(memory, next(iter(forms)))
    costs = []
    for first in forms:
        rest = (min(transfer.convert_ns, transfer.read(memory, form)) for form in forms - {first})
        costs.append(transfer.read(memory, first) + sum(rest))
    return min(costs)


def _chosen_options(
    graph: CostGraph, segments: Sequence[Segment], flows: Mapping[str, Flow] | None
) -> dict[int, Option]:
    backend_of = {
        graph.atom_index[atom]: graph.backend_index[segment.backend]
        for segment in segments
        for atom in segment.atoms
    }
    chosen: dict[int, Option] = {}
    for index in graph.order:
        atom = graph.atoms[index]
        candidates = [
            option for option in graph.options[index] if option.backend == backend_of[index]
        ]
        if flows is not None:
            candidates = [option for option in candidates if option.flow == flows[atom.id]]
        if not candidates:
            name = graph.backends[backend_of[index]].name
            raise InfeasibleAtomError(
                f"atom {atom.id!r} is planned on backend {name!r}, which cannot run it so; "
                f"backends that can: {feasible_backends(graph, index)}."
            )
        chosen[index] = min(candidates, key=lambda option: _local_ns(graph, index, option, chosen))
    return chosen


def _local_ns(
    graph: CostGraph, index: int, option: Option, chosen: Mapping[int, Option]
) -> tuple[bool, float]:
    """Cost of an atom with what getting its inputs in the wanted layout takes; unknown is last."""
    total = 0.0 if option.price is None else option.price.ns
    for tensor in graph.inputs[index]:
        spec = graph.tensors[tensor]
        transfer = graph.transfer(tensor, option.backend)
        source = graph.producer[tensor]
        wanted = spec.form(option.flow.reads)
        if source is None:
            total += min(transfer.read(memory, wanted) for memory in spec.allowed_in_memory())
        elif spec.form(chosen[source].flow.writes) is not wanted:
            total += transfer.convert_ns
    return (option.price is None, total)


def feasible_backends(graph: CostGraph, index: int) -> list[str]:
    """Names of the backends that can run an atom, given by index."""
    numbers = dict.fromkeys(option.backend for option in graph.options[index])
    return [graph.backends[number].name for number in numbers]
