"""Reading a report off a partitioned program and its plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from executorch.exir.delegate import executorch_call_delegate
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.candidates import Atom, Candidates
from orchestrator.backends.portable import missing_kernel
from orchestrator.graph.branches import branch_nodes, delegate_calls_of
from orchestrator.graph.layouts import converted
from orchestrator.graph.queries import (
    compute_nodes,
    dtype_name,
    is_getitem,
    module_path,
    nbytes,
    op_name,
    tensor_results,
)
from orchestrator.graph.schemes import schemes, stored_bytes
from orchestrator.planner import Calls, CostGraph, Layout, Plan
from orchestrator.report.data import (
    AtomReport,
    BranchCalls,
    EdgeReport,
    MethodReport,
    RejectionReport,
    SegmentReport,
    TensorReport,
)
from orchestrator.report.pricing import atom_prices, conversions, describe_plan, with_cost
from orchestrator.report.sources import covering_modules, source_line


def describe_method(
    ep: ExportedProgram,
    candidates: Candidates,
    plan: Plan,
    graph: CostGraph,
    name: str = "forward",
    calls: Calls | None = None,
) -> MethodReport:
    """Describe a program whose nodes are tagged as a plan says.

    graph: what the plan was made for; the plan's costs are None in the report where the graph has
        no prices. calls: see `describe_plan`.
    """
    atoms = {atom.id: atom for atom in candidates.atoms}
    rejections = tuple(
        RejectionReport(
            rejection.backend,
            rejection.node.name,
            op_name(rejection.node),
            rejection.reason,
            module_path(rejection.node),
            rejection.remedy,
            rejection.code,
        )
        for rejection in candidates.rejections
    )
    nodes = (*compute_nodes(ep), *branch_nodes(ep))
    left = [node for node in nodes if "delegation_tag" not in node.meta]
    return MethodReport(
        name=name,
        segments=tuple(_segments(candidates, plan, graph)),
        missing_kernels={
            op_name(node): kernel
            for node in left
            if not is_getitem(node) and (kernel := missing_kernel(node)) is not None
        },
        rejections=rejections,
        atoms=tuple(_atoms(atoms, plan, graph)),
        edges=tuple(
            EdgeReport(
                tensor.id, tensor.producer or "", tensor.consumers, tensor.nbytes, tensor.is_output
            )
            for tensor in graph.tensors
        ),
        plan=describe_plan(plan, graph, calls),
        converted={
            node.name: source.name
            for node in compute_nodes(ep)
            if (source := converted(node)) is not None
        },
    )


def as_lowered(method: MethodReport, name: str, lowered: ExportedProgram) -> MethodReport:
    """Add what only the lowered program knows: the method's name, the order of its delegate calls,
    and for each the order of its arguments.
    """
    owners = {node: i for i, segment in enumerate(method.segments) for node in segment.nodes}
    segments = list(method.segments)
    calls: list[int] = []
    kernels: list[str] = []
    branches: list[BranchCalls] = []
    names: dict[Node, str] = {}  # of values, as before lowering
    for node in compute_nodes(lowered):
        if node.target is executorch_call_delegate:
            results = _results(_lowered_module(lowered.graph_module, node))
            inner = _lowered_module(lowered.graph_module, node).original_module.graph.nodes
            (number,) = {owners[each.name] for each in inner if _is_owned(each, owners)}
            calls.append(number)
            segments[number] = _with_arguments(segments[number], node, results, names)
            for user in node.users:
                index = user.args[1]
                assert is_getitem(user) and isinstance(index, int)
                names[user] = results[index].name
        elif node.name in owners:
            kernels.append(node.name)
            if node.target is torch.ops.higher_order.cond:
                more = delegate_calls_of(node)
                if more != {0}:
                    branches.append(BranchCalls(len(calls), tuple(sorted(more))))
    return replace(
        method,
        name=name,
        segments=tuple(segments),
        calls=tuple(calls),
        kernel_order=tuple(kernels),
        branch_calls=tuple(branches),
    )


def with_notes(method: MethodReport, *notes: str) -> MethodReport:
    """Add notes to those of a method's plan."""
    if method.plan is None or not notes:
        return method
    return replace(method, plan=replace(method.plan, notes=(*method.plan.notes, *notes)))


def _is_owned(node: Node, owners: Mapping[str, int]) -> bool:
    return node.op == "call_function" and node.name in owners


def _results(module: Any) -> list[Node]:
    (results,) = module.original_module.graph.output_node().args
    return list(results)


def _with_arguments(
    segment: SegmentReport, call: Node, results: Sequence[Node], names: Mapping[Node, str]
) -> SegmentReport:
    """Put inputs and outputs in the order of the call's arguments."""
    known = {tensor.name: tensor for tensor in (*segment.inputs, *segment.outputs)}

    def report(node: Node) -> TensorReport:
        name = names.get(node, node.name)
        return known.get(name) or replace(_tensor(node, {}), name=name)

    sources = [argument for argument in call.args[1:] if isinstance(argument, Node)]
    return replace(
        segment,
        inputs=tuple(map(report, sources)),
        outputs=tuple(map(report, results)),
    )


def _lowered_module(graph_module: torch.fx.GraphModule, node: Node) -> Any:
    getter = node.args[0]
    assert isinstance(getter, Node)
    return getattr(graph_module, str(getter.target))


def _segments(candidates: Candidates, plan: Plan, graph: CostGraph) -> Iterable[SegmentReport]:
    where = {atom: number for number, row in enumerate(plan.segments) for atom in row.atoms}
    paths = [
        (where[atom.id], module_path(node))
        for atom in candidates.atoms
        for node in atom.nodes
        if not is_getitem(node)
    ]
    unknown = set(plan.cost.unknown)
    for number, segment in enumerate(plan.segments):
        nodes = list(candidates.nodes(segment.atoms))
        described = _segment(segment.backend, nodes, plan.layouts)
        described = replace(
            described,
            is_delegate=segment.is_delegate,
            atoms=segment.atoms,
            modules=covering_modules(
                [path for index, path in paths if index == number],
                [path for index, path in paths if index != number],
            ),
            conversions=conversions(plan, graph, number),
        )
        priced = not unknown.intersection(segment.atoms)
        yield with_cost(described, plan.cost.segments[number]) if priced else described


def _segment(backend: str, nodes: Sequence[Node], layouts: Mapping[str, Layout]) -> SegmentReport:
    inside = set(nodes)
    weights = {
        source
        for node in nodes
        for source in node.all_input_nodes
        if source.op == "placeholder" and source.meta.get("delegation_tag") is not None
    }
    sources = dict.fromkeys(
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in inside and source not in weights and source.op != "get_attr"
    )
    results = [node for node in nodes if any(user not in inside for user in node.users)]
    ops = [node for node in nodes if not is_getitem(node)]
    return SegmentReport(
        backend=backend,
        nodes=tuple(node.name for node in ops),
        ops=_count(ops),
        inputs=tuple(_tensor(source, layouts) for source in sources),
        outputs=tuple(_tensor(result, layouts) for result in results),
        weight_bytes=sum(map(stored_bytes, weights)),
        schemes={str(scheme): count for scheme, count in schemes(nodes).items()},
    )


def _atoms(atoms: Mapping[str, Atom], plan: Plan, graph: CostGraph) -> Iterable[AtomReport]:
    for number, segment in enumerate(plan.segments):
        for name in segment.atoms:
            nodes = [node for node in atoms[name].nodes if not is_getitem(node)]
            costs, predicted = atom_prices(plan, graph, name)
            yield AtomReport(
                id=name,
                nodes=tuple(node.name for node in nodes),
                ops=tuple(op_name(node) for node in nodes),
                backend=segment.backend,
                segment=number,
                module=module_path(nodes[0]),
                source=source_line(nodes[0]),
                output=_type_text(nodes[-1]),
                costs_ns=costs,
                predicted_ns=predicted,
            )


def _count(nodes: Iterable[Node]) -> dict[str, int]:
    """Count ops, the most frequent first."""
    return dict(Counter(op_name(node) for node in nodes).most_common())


def _tensor(node: Node, layouts: Mapping[str, Layout]) -> TensorReport:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return TensorReport(node.name, type(value).__name__, (), 0)
    return TensorReport(
        node.name,
        dtype_name(value.dtype),
        tuple(size if isinstance(size, int) else str(size) for size in value.shape),
        nbytes(node),
        layouts.get(node.name, Layout.CONTIGUOUS).value,
    )


def _type_text(node: Node) -> str:
    return ", ".join(
        f"{dtype_name(value.dtype)}[{','.join(map(str, value.shape))}]"
        for value in tensor_results(node)
    )
