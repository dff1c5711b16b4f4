"""The delegate: ExecuTorch's own partitioner finds the groups, and quirks rule some out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import XNNPartitionerConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir.backend.canonical_partitioners.config_partitioner import format_target_name
from executorch.exir.backend.utils import WhyNoPartition
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.reasons import Code, Reason, unfit_dtype
from orchestrator.backends.base import (
    Backend,
    Candidate,
    Estimates,
    NodeFilter,
    PrivateMemory,
    QuantizedErrors,
    Rates,
    Rejection,
    Support,
)
from orchestrator.backends.xnnpack.expansions import EXPANDED, expanded_ops, is_expandable
from orchestrator.backends.xnnpack.group import Group, Surroundings
from orchestrator.backends.xnnpack.passes import passes_digest, run_ours_first, run_where_needed
from orchestrator.backends.xnnpack.quirks import FUSED_ACTIVATIONS, find_call_quirk, find_quirk
from orchestrator.graph.queries import compute_nodes, constant_nodes, is_getitem, op_name
from orchestrator.planner import Layout
from orchestrator.versions import executorch_version

run_where_needed()

_IMAGE_RANK = 4
_TO_FLOAT = "compute it in float32: x.float() before it"
# ExecuTorch's configs say why not as text alone; by a part of it, what it is about.
_CODES: tuple[tuple[str, Code], ...] = (
    ("only supports averaging 4D tensors", "rank"),
    ("dynamic", "dynamic"),
    ("ymbolic", "dynamic"),
)


class XnnpackDelegate(Backend):
    """ExecuTorch's XNNPACK delegate: its own partitioner's groups, one candidate each."""

    name = "xnnpack"
    backend_id = XnnpackBackend.__name__
    converts_dim_orders = True
    is_proven = True
    # Measured by benchmarks/estimates.py.
    estimates = Estimates(
        {
            "product": Rates(90.0, 16.0, 300.0, 0.25),
            "int8 product": Rates(250.0, 16.0, 300.0, 0.35),
            "depthwise": Rates(36.0, 16.0, 300.0, 0.35),
            "other": Rates(16.0, 16.0, 200.0, 0.6),
        },
        half=1.4,
        expanded_ops=expanded_ops(),
    )
    # Weights are packed at load: 358 MB for 346 MB of ViT-B/16.
    private_memory = PrivateMemory(per_weight_byte=1.035)
    # Scales of groups become bfloat16, and rows have scales of their own.
    quantized_errors = QuantizedErrors(groups=2.0**-9, per_tensor=2e-2)
    remedies: ClassVar[Mapping[str, str]] = {
        "op": "write it with ops that XNNPACK has",
        "rank": "reshape to rank 4 around it",
        "unbatched": "add a batch dimension (unsqueeze) before it",
        "integers": _TO_FLOAT,
        "float64": "use float32: model.float() before exporting",
        "half": "use float32 activations: model.float() before exporting",
        "dynamic": "export this size as a fixed one",
        "changed": "keep the weight out of in-place updates",
        "shared": "give each user a copy of its own",
        "negative-index": "use an index counted from the start",
    }

    def __init__(self) -> None:
        run_ours_first()
        self._partitioner = XnnpackPartitioner()
        self._failed: tuple[Node, str] | None = None
        for config in self._partitioner.target_partitioner_configs.values():
            self._refuse_what_fails(config)

    def propose(self, ep: ExportedProgram) -> Support:
        """Return the partitioner's match groups, and a reason for every other node."""
        candidates, rejections = [], []
        taken: set[Node] = set()
        around = Surroundings(ep, self._has_operator)
        fixed = constant_nodes(ep)
        groups = self._partitioner.get_matched_nodes_from_configs(ep)
        groups += [[node] for node in compute_nodes(ep) if is_expandable(node)]
        # A constant with several users is listed in the first one's group only.
        packed = {node for group in groups for node in group if node in fixed}
        for group in groups:
            nodes = tuple(node for node in group if node.op == "call_function")
            sources = (source for node in nodes for source in node.all_input_nodes)
            constants = tuple(dict.fromkeys(source for source in sources if source in packed))
            taken.update(nodes)
            reason = find_quirk(Group(nodes, constants, around))
            if reason is None:
                candidates.append(Candidate(nodes, constants, divisible=_is_divisible(nodes)))
            else:
                rejections += [Rejection(node, str(reason), reason.code) for node in nodes]
        for node in compute_nodes(ep):
            if node not in taken:
                reason = self._reason(node, ep)
                rejections.append(Rejection(node, str(reason), reason.code))
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Return the ops that XNNPACK's configs preserve, and those that are expanded for it."""
        ops, accepted = self._partitioner.ops_to_not_decompose(ep)
        return [*ops, *EXPANDED], lambda node: is_expandable(node) or accepted(node)

    def check_segment(self, nodes: Sequence[Node]) -> str | None:
        """Refuse calls that meet a known fault of the delegate."""
        return find_call_quirk(nodes)

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        """Return both layouts for images."""
        return tuple(Layout) if rank == _IMAGE_RANK else (Layout.CONTIGUOUS,)

    def versions(self) -> str:
        """Return ExecuTorch's version, as its wheel holds the delegate, and that of our passes."""
        return f"{executorch_version()}, passes {passes_digest()}"

    def _refuse_what_fails(self, config: XNNPartitionerConfig) -> None:
        """Make a config refuse nodes on which its own code raises.

        Some take an op's weight for another node than its input, so prelu(x, x) has too few.
        """

        def refusing(name: str, refusal: object) -> None:
            method = getattr(config, name)

            def call(node: Node, ep: ExportedProgram) -> object:
                try:
                    return method(node, ep)
                except Exception as error:  # whatever it is, the node is none for XNNPACK
                    self._failed = (node, f"{type(error).__name__}: {error}")
                    return refusal

            setattr(config, name, call)

        refusing("check_constraints", False)
        refusing("get_partition", [])

    def _config(self, node: Node) -> XNNPartitionerConfig | None:
        target = format_target_name(getattr(node.target, "__name__", str(node.target)))
        return self._partitioner.target_partitioner_configs.get(target)

    def _has_operator(self, node: Node) -> bool:
        return self._config(node) is not None

    def _reason(self, node: Node, ep: ExportedProgram) -> Reason:
        config = self._config(node)
        if config is None:
            return Reason("op", f"no XNNPACK operator for {op_name(node)}")
        loggers = list(_why_loggers(config))
        for why in loggers:
            why.node = None
        self._failed = None
        accepted = config.check_constraints(node, ep) and config.get_partition(node, ep)
        if self._failed is not None and self._failed[0] is node:
            text = f"{type(config).__name__} fails on the node: {self._failed[1]}"
            return Reason("failed", text)
        if accepted:
            text = f"{type(config).__name__} accepts the node, but not the nodes around it"
            return Reason("neighbours", text)
        # The configs report through module-level WhyNoPartition objects, which keep the last
        # node and reason they were called with.
        reasons = [why.reason for why in loggers if why.node is node]
        if not reasons:
            text = f"a constraint of {type(config).__name__} is not met"
            return Reason("unsupported", text)
        return _explain(reasons[0], node)


def _why_loggers(config: XNNPartitionerConfig) -> Iterator[WhyNoPartition]:
    """Yield the reporters that a config's own class and its bases use, most derived first."""
    seen = set()
    for cls in type(config).__mro__:
        why = getattr(sys.modules[cls.__module__], "why", None)
        if isinstance(why, WhyNoPartition) and id(why) not in seen:
            seen.add(id(why))
            yield why


def _explain(text: str, node: Node) -> Reason:
    if text != "invalid dtype":
        code: Code = next((code for part, code in _CODES if part in text), "unsupported")
        return Reason(code, text)
    values = (each.meta.get("val") for each in (*node.all_input_nodes, node))
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    unfit = sorted(dtypes - {torch.float32}, key=str)
    names = ", ".join(sorted(map(str, dtypes))) or "absent"
    return unfit_dtype(unfit[0] if unfit else None, f"dtype not supported (tensors are {names})")


def _is_divisible(nodes: Sequence[Node]) -> bool:
    """Whether a group is one op with the activation that XNNPACK fuses into it.

    Other groups are patterns (quantized ops, matrix products with a transposed weight), whose
    parts XNNPACK does not know by themselves.
    """
    ops = [node for node in nodes if not is_getitem(node)]
    return sum(op_name(node) not in FUSED_ACTIVATIONS for node in ops) <= 1
