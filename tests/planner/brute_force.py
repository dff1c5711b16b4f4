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

from orchestrator.planner import CostGraph, Flow, Layout, Plan, Segment, price_plan
from orchestrator.planner.cost_graph import Option


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


def best_cost(graph: CostGraph) -> float:
    """The cost of the best plan, for graphs of up to about eight atoms."""
    everything = frozenset(range(len(graph.atoms)))

    @cache
    def rest(done: frozenset[int], memory: tuple[tuple[int, Layout], ...]) -> float:
        if done == everything:
            return 0.0
        best = float("inf")
        for group in _groups(graph, done):
            for backend in range(len(graph.backends)):
                rows = [[o for o in graph.options[i] if o.backend == backend] for i in group]
                ends: dict[tuple[tuple[int, Layout], ...], float] = {}
                for options in itertools.product(*rows):
                    for cost, after in _run(graph, done, dict(memory), group, options):
                        ends[after] = min(cost, ends.get(after, float("inf")))
                for after, cost in ends.items():
                    if cost < best:
                        best = min(best, cost + rest(done | frozenset(group), after))
        return best

    starts = [
        [(tensor, layout) for layout in spec.allowed_in_memory()]
        for tensor, spec in enumerate(graph.tensors)
        if spec.producer is None and graph.consumers[tensor]
    ]
    return min(rest(frozenset(), start) for start in itertools.product(*starts))


def _run(
    graph: CostGraph,
    done: frozenset[int],
    memory: dict[int, Layout],
    group: tuple[int, ...],
    options: tuple[Option, ...],
) -> Iterator[tuple[float, tuple[tuple[int, Layout], ...]]]:
    """Cost of one segment and the tensors in memory after it, for every choice of their layouts."""
    flow = {index: option.flow for index, option in zip(group, options, strict=True)}
    backend = graph.backends[options[0].backend]
    fixed = backend.call_overhead_ns if backend.is_delegate else 0.0
    fixed += sum(option.price.ns for option in options if option.price is not None)
    choices: list[list[tuple[float, list[tuple[int, Layout]]]]] = []
    after = done | frozenset(group)
    for tensor, spec in enumerate(graph.tensors):
        users = graph.consumers[tensor]
        wanted = {spec.form(flow[user].reads) for user in users if user in flow}
        transfer = graph.transfer(tensor, options[0].backend)
        needed_later = any(user not in after for user in users)
        producer = graph.producer[tensor]
        if producer in flow:
            made = spec.form(flow[producer].writes)
            fixed += transfer.convert_ns * len(wanted - {made})
            if needed_later or spec.is_output:
                forms = wanted | {made}
                choices.append(
                    [
                        (
                            min(transfer.write(form, layout) for form in forms),
                            [(tensor, layout)] if needed_later else [],
                        )
                        for layout in spec.allowed_in_memory()
                    ]
                )
        elif tensor in memory:
            home = memory[tensor]
            if len(wanted) == 1:
                fixed += transfer.read(home, *wanted)
            elif wanted:
                reads = {form: transfer.read(home, form) for form in Layout}
                both = [
                    reads[a] + min(reads[b], transfer.convert_ns)
                    for a, b in itertools.permutations(Layout, 2)
                ]
                fixed += min(both)
            if needed_later:
                choices.append([(0.0, [(tensor, home)])])
    for combination in itertools.product(*choices):
        kept = sorted(
            (entry for _, entries in combination for entry in entries), key=lambda e: e[0]
        )
        yield fixed + sum(cost for cost, _ in combination), tuple(kept)
