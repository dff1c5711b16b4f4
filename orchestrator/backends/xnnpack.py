"""XNNPACK, through the partitioner configs that come with ExecuTorch."""

from __future__ import annotations

import math
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import (
    ChannelsLastTaggedReshapePass,
)
from executorch.backends.xnnpack.partition.config.xnnpack_config import XNNPartitionerConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir.backend.canonical_partitioners.config_partitioner import format_target_name
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.utils import WhyNoPartition
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import Candidate, NodeFilter, Rejection, Support
from orchestrator.backends.xnnpack_dynamic import unfit_dynamic_image
from orchestrator.backends.xnnpack_quantized import unfit_quantization
from orchestrator.dim_orders.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import computed_from, is_quantization
from orchestrator.graph.queries import (
    compute_nodes,
    constant_nodes,
    is_getitem,
    mutated_buffers,
    op_name,
)

_MAX_RANK = 6  # XNN_MAX_TENSOR_DIMS

_POOLS = {
    "aten.avg_pool2d.default",
    "aten.max_pool2d.default",
    "aten.max_pool2d_with_indices.default",
}
_RESHAPES = {"aten.unsqueeze_copy.default", "aten.squeeze_copy.dim"}
_COPIES = {"aten.clone.default", "dim_order_ops._clone_dim_order.default"}
_PRODUCTS = {"aten.mm.default", "aten.addmm.default"}
# What a linear layer may consist of, beside its product and what quantizes it.
_IN_LINEAR = {
    *("aten.view_copy.default", "aten.permute_copy.default", "aten.t_copy.default"),
    *("aten.expand_copy.default", "aten.unsqueeze_copy.default", "aten.squeeze_copy.dim"),
    *("aten.squeeze_copy.dims", "aten.add.Tensor", "aten.clone.default"),
    *("dim_order_ops._clone_dim_order.default", "aten.linear.default"),
}
_FUSED_ACTIVATIONS = {"aten.relu.default", "aten.hardtanh.default"}


class XnnpackDelegate:
    """ExecuTorch's XNNPACK delegate: its own partitioner's groups, one candidate each."""

    name = "xnnpack"
    backend_id = XnnpackBackend.__name__
    converts_dim_orders = True  # see ChannelsLastPass

    def __init__(self) -> None:
        self._partitioner = XnnpackPartitioner()
        self._failed: tuple[Node, str] | None = None
        for config in self._partitioner.target_partitioner_configs.values():
            self._refuse_what_fails(config)

    def available(self) -> str | None:
        """Return None: the delegate is part of the executorch wheel."""
        return None

    def propose(self, ep: ExportedProgram) -> Support:
        """Return the partitioner's match groups, and a reason for every other node."""
        fixed, mutated = constant_nodes(ep), mutated_buffers(ep)
        candidates, rejections = [], []
        taken: set[Node] = set()
        channels_last = _maybe_channels_last(ep)
        weights = computed_from(compute_nodes(ep), fixed - mutated)
        groups = self._partitioner.get_matched_nodes_from_configs(ep)
        # A constant with several users is listed in the first one's group only.
        packed = {node for group in groups for node in group if node in fixed}
        for group in groups:
            nodes = tuple(node for node in group if node.op == "call_function")
            sources = (source for node in nodes for source in node.all_input_nodes)
            constants = tuple(dict.fromkeys(source for source in sources if source in packed))
            taken.update(nodes)
            reason = (
                _unfit_arguments(nodes)
                or _unfit_linear(nodes)
                or unfit_quantization(nodes, weights, ep)
                or unfit_dynamic_image(nodes, channels_last, weights | fixed, self._has_operator)
                or _unfit_softmax(nodes, channels_last)
                or _unfit(nodes, constants, mutated)
                or _unfit_dim_order(nodes)
            )
            if reason is None:
                candidates.append(Candidate(nodes, constants, divisible=_is_divisible(nodes)))
            else:
                rejections += [Rejection(node, reason) for node in nodes]
        rejections += [
            Rejection(node, self._reason(node, ep))
            for node in compute_nodes(ep)
            if node not in taken
        ]
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Return the ops that XNNPACK's configs keep whole, filtered by their constraints."""
        ops, node_filter = self._partitioner.ops_to_not_decompose(ep)
        return ops, node_filter

    def compile_specs(self) -> list[CompileSpec]:
        """Return no options: XNNPACK is configured at load time."""
        return []

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

    def _reason(self, node: Node, ep: ExportedProgram) -> str:
        config = self._config(node)
        if config is None:
            return f"no XNNPACK operator for {op_name(node)}"
        loggers = list(_why_loggers(config))
        for why in loggers:
            why.node = None
        self._failed = None
        accepted = config.check_constraints(node, ep) and config.get_partition(node, ep)
        if self._failed is not None and self._failed[0] is node:
            return f"{type(config).__name__} fails on the node: {self._failed[1]}"
        if accepted:
            return f"{type(config).__name__} accepts the node, but not the nodes around it"
        # The configs report through module-level WhyNoPartition objects, which keep the last
        # node and reason they were called with.
        reasons = [why.reason for why in loggers if why.node is node]
        if not reasons:
            return f"a constraint of {type(config).__name__} is not met"
        return _explain(reasons[0], node)


def _why_loggers(config: XNNPartitionerConfig) -> Iterator[WhyNoPartition]:
    """Yield the reporters that a config's own class and its bases use, most derived first."""
    seen = set()
    for cls in type(config).__mro__:
        why = getattr(sys.modules[cls.__module__], "why", None)
        if isinstance(why, WhyNoPartition) and id(why) not in seen:
            seen.add(id(why))
            yield why


def _unfit_arguments(nodes: Sequence[Node]) -> str | None:
    """Say why XNNPACK would get a group wrong because of arguments that its configs miss."""
    for node in nodes:
        if op_name(node) == "aten.addmm.default":
            if any(node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
                return "XNNPACK's addmm ignores alpha and beta"
            bias = node.all_input_nodes[0].meta["val"]
            result = node.meta["val"]
            if tuple(bias.shape) != (result.shape[-1],):
                return f"XNNPACK adds a row, but addmm's first input is {list(bias.shape)}"
        if op_name(node) == "aten.gelu.default" and node.kwargs.get("approximate") == "tanh":
            return "XNNPACK's GELU is the exact one, not its approximation by tanh"
        if op_name(node) == "aten.prelu.default" and node.meta["val"].dim() != 4:
            return "XNNPACK's prelu takes images, of rank 4"
        if op_name(node) in _POOLS and _rank(node.all_input_nodes[0]) != 4:
            return "XNNPACK's pools take images, of rank 4"
        if op_name(node) == "aten.hardtanh.default" and len(node.args) == 2:
            return "XNNPACK wants both bounds of hardtanh"
        if op_name(node) == "aten.max.dim" and (node.args[1:] not in ((2, True), (3, True))):
            return "XNNPACK's max along a dim takes dim 2 or 3, and keeps it"
        # A convolution of one dim is one of images for XNNPACK, between reshapes.
        reshapes = op_name(node) in _RESHAPES or _is_convolution_1d(node)
        if reshapes and max(map(_dynamic_sizes, (node, node.all_input_nodes[0]))) > 1:
            return "XNNPACK reshapes to one dynamic size at most"
        if op_name(node) in _COPIES and len(node.all_input_nodes[0].users) > 1:
            name = node.all_input_nodes[0].name
            return f"XNNPACK drops a copy of {name}, and could not return it and {name} as well"
        if op_name(node) == "aten.convolution.default" and _pads_by_a_stride(*node.args):
            return "XNNPACK wants an output padding below the stride"
        if op_name(node) == "aten.slice_copy.Tensor" and _starts_before(*node.args):
            return "XNNPACK wants a slice to start within its input"
        if op_name(node) == "aten.upsample_bilinear2d.vec" and _rounds_a_scale(node):
            return "XNNPACK resizes by the ratio of the sizes, not by the scale factors given"
    return None


def _unfit_linear(nodes: Sequence[Node]) -> str | None:
    """Say which op XNNPACK would drop out of a layer that it takes for a linear one by its name.

    torchao's weights of 8 bits compute one with a product of integers and scales around it.
    """
    if not any(op_name(node) in _PRODUCTS for node in nodes):
        return None
    known = _PRODUCTS | _IN_LINEAR | _FUSED_ACTIVATIONS
    other = next(
        (
            node
            for node in nodes
            if not (op_name(node) in known or is_getitem(node) or is_quantization(node))
        ),
        None,
    )
    if other is None:
        return None
    return f"XNNPACK takes the layer for a plain linear one, without its {op_name(other)}"


def _maybe_channels_last(ep: ExportedProgram) -> set[Node]:
    """Which images XNNPACK may hold in channels-last while it runs, whatever their dim order says.

    Convolutions and others turn to it, and what follows stays in it.
    """
    found: set[Node] = set()
    for node in ep.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)) and value:  # of an op with several results
            value = value[0]
        if not isinstance(value, torch.Tensor) or value.dim() != 4:
            continue
        if node.target in ChannelsLastTaggedReshapePass.memory_sensitive_ops_nchw:
            continue
        if (
            node.target in ChannelsLastTaggedReshapePass.memory_sensitive_ops_nhwc
            or tuple(value.dim_order()) == CHANNELS_LAST_ORDER
            or not found.isdisjoint(node.all_input_nodes)
        ):
            found.add(node)
    return found


def _unfit_softmax(nodes: Sequence[Node], channels_last: Container[Node]) -> str | None:
    """Say why XNNPACK would take the softmax over the channels instead of the last dim."""
    for node in nodes:
        if op_name(node) == "aten._softmax.default" and node.all_input_nodes[0] in channels_last:
            return "XNNPACK may hold the image in channels-last, and its softmax is over channels"
    return None


def _dynamic_sizes(node: Node) -> int:
    return sum(not isinstance(size, int) for size in node.meta["val"].shape)


def _pads_by_a_stride(*arguments: Any) -> bool:
    """Whether a convolution's output padding, which transposed ones have, reaches its stride."""
    stride, output_padding = arguments[3], arguments[7]
    strides = [*stride] * len(output_padding) if len(stride) == 1 else stride
    return any(pad >= step for pad, step in zip(output_padding, strides, strict=False))


def _starts_before(*arguments: Any) -> bool:
    """Whether a slice counts its start from the end, beyond the first element."""
    source, dim, start = (*arguments, 0, None)[:3]
    return isinstance(start, int) and start < -source.meta["val"].shape[dim]


def _rounds_a_scale(node: Node) -> bool:
    """Whether a resized image's sizes are its scale factors' only after rounding.

    Eager samples by the scale factors themselves, except where corners are aligned.
    """
    arguments: tuple[Any, ...] = node.args
    image, _, align_corners, scales = arguments
    if align_corners or scales is None:
        return False
    before, after = (value.meta["val"].shape[-2:] for value in (image, node))
    return not all(
        math.isclose(new / old, scale, rel_tol=1e-6)
        for old, new, scale in zip(before, after, scales, strict=True)
    )


def _unfit(
    nodes: Sequence[Node], constants: Iterable[Node], mutated: Container[Node]
) -> str | None:
    """Say why XNNPACK would get a group wrong, or not load it, which its configs miss."""
    for node in nodes:
        rank = max((_rank(value) for value in (node, *node.all_input_nodes)), default=0)
        if rank > _MAX_RANK:
            return f"a tensor of rank {rank}, XNNPACK has at most {_MAX_RANK}"
    for constant in constants:
        if constant in mutated:
            # Weights are packed once, when the program is loaded.
            return f"needs a fixed weight, but the model changes the buffer {constant.name}"
        if len(constant.users) > 1 and any(_is_convolution_1d(node) for node in nodes):
            # XNNPACK's passes add a dimension to the weight itself, once for every user.
            return f"a 1d convolution whose weight {constant.name} has other users"
    return None


def _rank(node: Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _unfit_dim_order(nodes: Sequence[Node]) -> str | None:
    """Say which tensor's dim order XNNPACK does not know, or would read in two ways.

    An image of one pixel or one channel is contiguous and channels-last at once. XNNPACK's passes
    take it for contiguous; its runtime goes by the dim order, and rearranges the sizes.
    """
    for node in nodes:
        for source in (node, *node.all_input_nodes):
            value = source.meta.get("val")
            if not isinstance(value, torch.Tensor):
                continue
            order = tuple(value.dim_order())
            if order == tuple(range(len(order))):
                continue
            if order != CHANNELS_LAST_ORDER:
                return f"{source.name} has the dim order {list(order)}, unknown to XNNPACK"
            _, channels, height, width = value.shape
            if _is_one(channels) or (_is_one(height) and _is_one(width)):
                return f"{source.name} is contiguous, but its dim order says channels-last"
    return None


def _is_one(size: int | torch.SymInt) -> bool:
    return isinstance(size, int) and size == 1


def _is_convolution_1d(node: Node) -> bool:
    return op_name(node) == "aten.convolution.default" and node.meta["val"].dim() == 3


def _explain(reason: str, node: Node) -> str:
    if reason != "invalid dtype":
        return reason
    found = sorted(
        {
            str(value.dtype).removeprefix("torch.")
            for value in (arg.meta.get("val") for arg in (*node.all_input_nodes, node))
            if isinstance(value, torch.Tensor)
        }
    )
    return f"dtype not supported (tensors are {', '.join(found) or 'absent'})"


def _is_divisible(nodes: Sequence[Node]) -> bool:
    """Whether a group is one op with the activation that XNNPACK fuses into it.

    Other groups are patterns (quantized ops, matrix products with a transposed weight), whose
    parts XNNPACK does not know by themselves.
    """
    ops = [node for node in nodes if not is_getitem(node)]
    return sum(op_name(node) not in _FUSED_ACTIVATIONS for node in ops) <= 1
