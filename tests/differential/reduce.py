"""Cutting a graph that fails down to few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from tests.differential.graphs import Graph, Input, Ref, Values, call, resolve
from tests.differential.tolerance import is_comparable


def reduced(graph: Graph, fails: Callable[[Graph], bool]) -> Graph:
    """The smallest graph found that still fails, or the graph itself.

    Tries each output alone, then its last steps on inputs in place of what they read.
    """
    for output in graph.outputs:
        part = replace(graph, outputs=[output]).pruned()
        if not fails(part):
            continue
        for count in range(1, len(part.steps)):
            tail = _last_steps(part, count)
            if tail is not None and is_comparable(tail) and fails(tail):
                return tail
        return part
    return graph


def _last_steps(graph: Graph, count: int) -> Graph | None:
    """The last steps, reading inputs in place of earlier results; None if those are integers.

    None as well of graphs that keep states, which those steps may not reach.
    """
    if graph.writes:
        return None
    first = len(graph.steps) - count
    values = Values(list(graph.make_inputs(1)), graph.constants, [])
    with torch.no_grad():
        for step in graph.steps:
            values.results.append(call(step, values))
    inputs = list(graph.inputs)
    replaced: dict[Ref, Ref] = {}
    for step in graph.steps[first:]:
        for ref in sorted(step.refs(), key=str):
            if ref.kind == "v" and ref.index < first and ref not in replaced:
                value = resolve(ref, values)
                if value.dtype != torch.float32:
                    return None
                replaced[ref] = Ref("x", len(inputs))
                inputs.append(Input(tuple(value.shape)))

    def rename(ref: Ref) -> Ref:
        if ref in replaced:
            return replaced[ref]
        return Ref(ref.kind, ref.index - first, ref.item) if ref.kind == "v" else ref

    steps = [step.renamed(rename) for step in graph.steps[first:]]
    outputs = [rename(ref) for ref in graph.outputs]
    return replace(graph, inputs=inputs, steps=steps, outputs=outputs).pruned()
