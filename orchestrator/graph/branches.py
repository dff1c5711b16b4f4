"""The branches of `torch.cond`, as programs of their own.

A branch takes all it needs as inputs, weights too: the program around it owns them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.graph_module import get_control_flow_submodules
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Node

from orchestrator.graph.queries import compute_nodes


@dataclass(frozen=True)
class Branch:
    """A branch of a cond node, by name, as a program that shares its nodes with the one around."""

    name: str
    cond: Node
    program: ExportedProgram


def branches_of(ep: ExportedProgram) -> Iterator[Branch]:
    """Yield every branch of a program, those in a branch before it. Tags on their nodes count."""
    for name, module, node in get_control_flow_submodules(ep.graph_module):
        if node.target is not torch.ops.higher_order.cond:
            continue
        program = copy.copy(ep)
        program._graph_module = module
        program._graph_signature = _signature(module)
        for inner in branches_of(program):
            yield replace(inner, name=f"{name}.{inner.name}")
        yield Branch(name, node, program)


def branch_nodes(ep: ExportedProgram) -> Iterator[Node]:
    """Yield the `call_function` nodes of all branches."""
    for branch in branches_of(ep):
        yield from compute_nodes(branch.program)


def delegate_calls(module: GraphModule) -> set[int]:
    """How many delegate calls a lowered graph may make: as many as the branches taken."""
    counts = {0}
    for node in module.graph.nodes:
        if node.target is executorch_call_delegate:
            counts = {count + 1 for count in counts}
        elif node.target is torch.ops.higher_order.cond:
            counts = {a + b for a in counts for b in delegate_calls_of(node)}
    return counts


def delegate_calls_of(cond: Node) -> set[int]:
    """The same of a cond node alone."""
    owner = cond.graph.owning_module
    modules = (getattr(owner, str(branch.target)) for branch in cond.args[1:3])  # type: ignore[union-attr]
    return set().union(*(delegate_calls(module) for module in modules))


def _signature(module: GraphModule) -> ExportGraphSignature:
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    (results,) = module.graph.output_node().args
    assert isinstance(results, list | tuple)
    outputs = [result for result in results if isinstance(result, Node)]
    return ExportGraphSignature(
        [InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None) for node in inputs],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in outputs],
    )
