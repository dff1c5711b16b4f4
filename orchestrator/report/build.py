"""Reading a report off a partitioned program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.portable import missing_kernel
from orchestrator.candidates import Candidates
from orchestrator.graph import compute_nodes, is_getitem, module_path, nbytes, op_name
from orchestrator.planner import Segment
from orchestrator.report.data import MethodReport, PartitionReport, RejectionReport, TensorReport


def describe_method(
    ep: ExportedProgram, candidates: Candidates, segments: Sequence[Segment], name: str = "forward"
) -> MethodReport:
    """Describe a program that was split into segments, each tagged in its nodes' metadata."""
    partitions = [
        _partition(segment.backend, list(candidates.nodes(segment.atoms))) for segment in segments
    ]
    left = [
        node
        for node in compute_nodes(ep)
        if "delegation_tag" not in node.meta and not is_getitem(node)
    ]
    return MethodReport(
        name=name,
        partitions=tuple(partitions),
        kernels=_count(left),
        missing_kernels={
            op_name(node): kernel for node in left if (kernel := missing_kernel(node)) is not None
        },
        rejections=tuple(
            RejectionReport(
                rejection.backend,
                rejection.node.name,
                op_name(rejection.node),
                rejection.reason,
                module_path(rejection.node),
            )
            for rejection in candidates.rejections
        ),
    )


def _partition(backend: str, nodes: Sequence[Node]) -> PartitionReport:
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
        if source not in inside and source not in weights
    )
    results = [node for node in nodes if any(user not in inside for user in node.users)]
    ops = [node for node in nodes if not is_getitem(node)]
    return PartitionReport(
        backend=backend,
        nodes=tuple(node.name for node in ops),
        ops=_count(ops),
        inputs=tuple(_tensor(source) for source in sources),
        outputs=tuple(_tensor(result) for result in results),
        weight_bytes=sum(nbytes(weight) for weight in weights),
    )


def _count(nodes: Iterable[Node]) -> dict[str, int]:
    """Count ops, the most frequent first."""
    return dict(Counter(op_name(node) for node in nodes).most_common())


def _tensor(node: Node) -> TensorReport:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return TensorReport(node.name, type(value).__name__, (), 0)
    sizes = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorReport(node.name, str(value.dtype).removeprefix("torch."), sizes, nbytes(node))


def rename(method: MethodReport, name: str) -> MethodReport:
    """Return a report under the method's own name, which a partitioner does not know."""
    return replace(method, name=name)
