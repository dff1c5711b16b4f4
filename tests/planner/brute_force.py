"""Oracles: two slow ways to the best plan that share no code with the solvers.

`enumerate_plans` tries every assignment, every flow and every segmentation, and leaves only the
price of a finished plan to the planner. `best_cost` follows the definition of a plan's cost on its
own: any set of ready atoms is a segment, with every backend, flow and layout of what it leaves
behind; only the best cost of what is left to do is remembered.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from orchestrator.planner import CostGraph, Flow, Layout, Plan, Segment, Transfer, price_plan


def enumerate_plans(graph: CostGraph) -> Iterator[Plan]:
    """Every plan, for graphs of up to about five atoms."""
    names = [atom.id for atom in graph.atoms]
    flows: dict[tuple[str, str], list[Flow]] = {}
    for name, options in zip(names, graph.options, strict=True):
        for option in options:
            flows.setdefault((name, graph.backends[option.backend].name), []).append(option.flow)
    for groups in _orders(graph, frozenset()):
        for backends in itertools.product(graph.backends, repeat=len(groups)):
            segments = [
                Segment(backend.name, tuple(names[index] for index in group), backend.is_delegate)
                for backend, group in zip(backends, groups, strict=True)
            ]
            homes = {name: part.backend for part in segments for name in part.atoms}
            choices = [flows.get((name, homes[name]), []) for name in names]
            for chosen in itertools.product(*choices):
                yield price_plan(
                    graph, segments, solver="all", flows=dict(zip(names, chosen, strict=True))
                )


def _orders(graph: CostGraph, done: frozenset[int]) -> Iterator[list[tuple[int, ...]]]:
    """Every way to run the atoms not done, as groups in order."""
    if len(done) == len(graph.atoms):
        yield []
    for group in _groups(graph, done):
        for rest in _orders(graph, done | frozenset(group)):
            yield [group, *rest]


def _groups(graph: CostGraph, done: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Every set of atoms that can run next as one segment, each in topological order."""
    left = [index for index in graph.order if index not in done]
    for size in range(1, len(left) + 1):
        for group in itertools.combinations(left, size):
            if all(p in done or p in group for index in group for p in graph.preds[index]):
                yield group


#: Tensors in memory, or a segment's inputs, with their layouts, in order.
Memory = tuple[tuple[int, Layout], ...]


def best_cost(graph: CostGraph) -> float:
    """The cost of the best plan, for graphs of up to about eight atoms."""
    everything = frozenset(range(len(graph.atoms)))
    users = [frozenset(row) for row in graph.consumers]

    @cache
    def groups(done: frozenset[int]) -> list[tuple[tuple[int, ...], frozenset[int]]]:
        return [(group, done | frozenset(group)) for group in _groups(graph, done)]

    @cache
    def ways(group: tuple[int, ...]) -> list[Way]:
        return _ways(graph, group)

    @cache
    def reading(tensor: int, backend: int, home: Layout, wanted: frozenset[Layout]) -> float:
        return _reading(graph.transfer(tensor, backend), home, wanted)

    @cache
    def segments(group: tuple[int, ...], read: Memory) -> dict[Memory, float]:
        """The least cost of a segment with these atoms, by what it leaves in memory."""
        best: dict[Memory, float] = {}
        for backend, wanted, ends in ways(group):
            first = sum(reading(t, backend, home, wanted[t]) for t, home in read)
            for left, cost in ends.items():
                best[left] = min(first + cost, best.get(left, float("inf")))
        return best

    @cache
    def rest(done: frozenset[int], memory: Memory) -> float:
        if done == everything:
            return 0.0
        best = float("inf")
        for group, after in groups(done):
            read = tuple(entry for entry in memory if not users[entry[0]].isdisjoint(group))
            kept = [entry for entry in memory if not users[entry[0]] <= after]
            for made, cost in segments(group, read).items():
                if cost < best:
                    then = sorted((*kept, *made), key=lambda entry: entry[0])
                    best = min(best, cost + rest(after, tuple(then)))
        return best

    starts = [
        [(tensor, layout) for layout in spec.allowed_in_memory()]
        for tensor, spec in enumerate(graph.tensors)
        if spec.producer is None and graph.consumers[tensor]
    ]
    return min(rest(frozenset(), start) for start in itertools.product(*starts))


#: A backend of a segment, the forms its atoms want of each tensor of other segments, and the least
#: cost of all but reading these, by what the segment leaves in memory for later ones.
Way = tuple[int, dict[int, frozenset[Layout]], dict[Memory, float]]


def _ways(graph: CostGraph, group: tuple[int, ...]) -> list[Way]:
    """Every backend and flow of a segment with these atoms, those that read alike as one."""
    inside = {t: [u for u in users if u in group] for t, users in enumerate(graph.consumers)}
    made = [tensor for tensor, producer in enumerate(graph.producer) if producer in group]
    read = [tensor for tensor, users in inside.items() if users and tensor not in made]
    # Of each tensor made that leaves the segment, its layouts in memory with what to remember.
    leaving = {
        tensor: [
            (layout, [(tensor, layout)] if later else [])
            for layout in graph.tensors[tensor].allowed_in_memory()
        ]
        for tensor in made
        if (later := len(inside[tensor]) < len(graph.consumers[tensor]))
        or graph.tensors[tensor].is_output
    }
    ways: dict[tuple[int, tuple[frozenset[Layout], ...]], dict[Memory, float]] = {}
    for number, backend in enumerate(graph.backends):
        overhead = backend.call_overhead_ns if backend.is_delegate else 0.0
        transfers = {tensor: graph.transfer(tensor, number) for tensor in made}
        rows = [[option for option in graph.options[i] if option.backend == number] for i in group]
        for options in itertools.product(*rows):
            flow = {index: option.flow for index, option in zip(group, options, strict=True)}
            fixed = overhead + sum(o.price.ns for o in options if o.price is not None)
            wants = tuple(
                frozenset(graph.tensors[tensor].form(flow[user].reads) for user in inside[tensor])
                for tensor in read
            )
            choices: list[list[tuple[float, list[tuple[int, Layout]]]]] = []
            for tensor in made:
                spec, transfer = graph.tensors[tensor], transfers[tensor]
                form = spec.form(flow[_producer(graph, tensor)].writes)
                wanted = {spec.form(flow[user].reads) for user in inside[tensor]}
                fixed += transfer.convert_ns * len(wanted - {form})
                if tensor in leaving:
                    choices.append(
                        [
                            (min(transfer.write(each, layout) for each in wanted | {form}), entry)
                            for layout, entry in leaving[tensor]
                        ]
                    )
            ends = ways.setdefault((number, wants), {})
            for combination in itertools.product(*choices):
                left = tuple(entry for _, entries in combination for entry in entries)
                cost = fixed + sum(cost for cost, _ in combination)
                ends[left] = min(cost, ends.get(left, float("inf")))
    return [
        (number, dict(zip(read, wants, strict=True)), ends)
        for (number, wants), ends in ways.items()
    ]


def _producer(graph: CostGraph, tensor: int) -> int:
    producer = graph.producer[tensor]
    assert producer is not None
    return producer


def _reading(transfer: Transfer, home: Layout, wanted: frozenset[Layout]) -> float:
    """What it costs to have a tensor in all the forms that atoms want it in."""
    if len(wanted) == 1:
        return transfer.read(home, *wanted)
    reads = {form: transfer.read(home, form) for form in Layout}
    return min(
        reads[a] + min(reads[b], transfer.convert_ns) for a, b in itertools.permutations(Layout, 2)
    )
