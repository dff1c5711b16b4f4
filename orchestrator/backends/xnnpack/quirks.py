"""What XNNPACK's delegate gets wrong, fails to compile or to load, though its partitioner takes it.

Each quirk is a fault of the delegate in ExecuTorch, in the version that it names. tests/backends/
test_xnnpack_quirks.py shows every one of them with ExecuTorch alone, and fails where ExecuTorch has
mended it, so that the quirk can go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from ggml_delegate.reasons import Code, Reason
from orchestrator.backends.xnnpack.dynamic_images import unfit_dynamic_image
from orchestrator.backends.xnnpack.group import MAX_RANK, Group, argument, rank
from orchestrator.backends.xnnpack.quantized import (
    unfit_activation,
    unfit_conversion,
    unfit_dim_order,
    unfit_float_activation,
    unfit_float_weight,
    unfit_half,
    unfit_pad,
    unfit_symmetry,
    unfit_weight,
)
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import is_dequantize, is_quantization
from orchestrator.graph.queries import dim_order, is_getitem, is_one, op_name

_CONVOLUTION = "aten.convolution.default"
_POOLS = (
    "aten.avg_pool2d.default",
    "aten.max_pool2d.default",
    "aten.max_pool2d_with_indices.default",
)
_RESHAPES = ("aten.unsqueeze_copy.default", "aten.squeeze_copy.dim")
_COPIES = ("aten.clone.default", "dim_order_ops._clone_dim_order.default")
_PRODUCTS = {"aten.mm.default", "aten.addmm.default"}
# What a linear layer may consist of, beside its product and what quantizes it.
_IN_LINEAR = {
    *("aten.view_copy.default", "aten.permute_copy.default", "aten.t_copy.default"),
    *("aten.expand_copy.default", "aten.unsqueeze_copy.default", "aten.squeeze_copy.dim"),
    *("aten.squeeze_copy.dims", "aten.add.Tensor", "aten.clone.default"),
    *("dim_order_ops._clone_dim_order.default", "aten.linear.default"),
}
FUSED_ACTIVATIONS = {"aten.relu.default", "aten.hardtanh.default"}


@dataclass(frozen=True)
class Quirk:
    """A fault of the delegate.

    name: for tests. ops: whose groups it is about; empty for all. unfit: says why a group meets it,
    or returns None. code: of the rejection. version: of ExecuTorch, in which it was seen.
    """

    name: str
    ops: tuple[str, ...]
    unfit: Callable[[Group], str | None]
    code: Code = "unsupported"
    version: str = "1.5.1"


@dataclass(frozen=True)
class CallQuirk:
    """A fault of the delegate in calls of certain nodes; fields as a Quirk's."""

    name: str
    unfit: Callable[[Sequence[Node]], str | None]
    version: str = "1.5.1"


def find_quirk(group: Group) -> Reason | None:
    """Return why a group is not for XNNPACK; None if no quirk is known of it."""
    ops = {op_name(node) for node in group.nodes}
    for quirk in QUIRKS:
        if quirk.ops and ops.isdisjoint(quirk.ops):
            continue
        text = quirk.unfit(group)
        if text is not None:
            return Reason(quirk.code, text)
    return None


def find_call_quirk(nodes: Sequence[Node]) -> str | None:
    """Return why nodes may not be one call of XNNPACK; None if nothing is known against it."""
    found = (quirk.unfit(nodes) for quirk in CALL_QUIRKS)
    return next((text for text in found if text is not None), None)


def _of_nodes(
    ops: Iterable[str], unfit: Callable[[Node], str | None]
) -> Callable[[Group], str | None]:
    """Ask about every node of some ops."""
    names = frozenset(ops)

    def ask(group: Group) -> str | None:
        found = (unfit(node) for node in group.nodes if op_name(node) in names)
        return next((text for text in found if text is not None), None)

    return ask


def _quirk(
    name: str, ops: str | tuple[str, ...], unfit: Callable[[Node], str | None], code: Code
) -> Quirk:
    """A quirk of single nodes."""
    ops = (ops,) if isinstance(ops, str) else ops
    return Quirk(name, ops, _of_nodes(ops, unfit), code)


def _addmm_scales(node: Node) -> str | None:
    if any(node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
        return "XNNPACK's addmm ignores alpha and beta"
    return None


def _addmm_bias(node: Node) -> str | None:
    bias, result = node.all_input_nodes[0].meta["val"], node.meta["val"]
    if tuple(bias.shape) != (result.shape[-1],):
        return f"XNNPACK adds a row, but addmm's first input is {list(bias.shape)}"
    return None


def _gelu_by_tanh(node: Node) -> str | None:
    if node.kwargs.get("approximate") == "tanh":
        return "XNNPACK's GELU is the exact one, not its approximation by tanh"
    return None


def _prelu(node: Node) -> str | None:
    return None if rank(node) == 4 else "XNNPACK's prelu takes images, of rank 4"


def _pool(node: Node) -> str | None:
    if rank(node.all_input_nodes[0]) != 4:
        return "XNNPACK's pools take images, of rank 4"
    return None


def _one_bound(node: Node) -> str | None:
    return "XNNPACK wants both bounds of hardtanh" if len(node.args) == 2 else None


def _max_dim(node: Node) -> str | None:
    if node.args[1:] not in ((2, True), (3, True)):
        return "XNNPACK's max along a dim takes dim 2 or 3, and keeps it"
    return None


def _reshape(node: Node) -> str | None:
    # A convolution of one dim is one of images for XNNPACK, between reshapes.
    reshapes = op_name(node) in _RESHAPES or is_convolution_1d(node)
    if reshapes and max(map(_dynamic_sizes, (node, node.all_input_nodes[0]))) > 1:
        return "XNNPACK reshapes to one dynamic size at most"
    return None


def _dynamic_sizes(node: Node) -> int:
    return sum(not isinstance(size, int) for size in node.meta["val"].shape)


def _copy(node: Node) -> str | None:
    source = node.all_input_nodes[0]
    if len(source.users) > 1:
        name = source.name
        return f"XNNPACK drops a copy of {name}, and could not return it and {name} as well"
    return None


def _output_padding(node: Node) -> str | None:
    stride, padding = argument(node, 3, "stride"), argument(node, 7, "output_padding")
    strides = [*stride] * len(padding) if len(stride) == 1 else stride
    if any(pad >= step for pad, step in zip(padding, strides, strict=False)):
        return "XNNPACK wants an output padding below the stride"
    return None


def _slice_start(node: Node) -> str | None:
    dim, start = argument(node, 1, "dim", 0), argument(node, 2, "start")
    if isinstance(start, int) and start < -node.all_input_nodes[0].meta["val"].shape[dim]:
        return "XNNPACK wants a slice to start within its input"
    return None


def _resize(node: Node) -> str | None:
    """Eager samples by the scale factors themselves, except where corners are aligned."""
    align_corners, scales = argument(node, 2, "align_corners"), argument(node, 3, "scale_factors")
    if align_corners or scales is None:
        return None
    before, after = (value.meta["val"].shape[-2:] for value in (node.all_input_nodes[0], node))
    exact = all(
        math.isclose(new / old, scale, rel_tol=1e-6)
        for old, new, scale in zip(before, after, scales, strict=True)
    )
    return None if exact else "XNNPACK resizes by the ratio of the sizes, not by the factors given"


def _linear_parts(group: Group) -> str | None:
    """torchao's weights of 8 bits compute a layer with a product of integers and scales around."""
    known = _PRODUCTS | _IN_LINEAR | FUSED_ACTIVATIONS
    for node in group.nodes:
        if not (op_name(node) in known or is_getitem(node) or is_quantization(node)):
            name = op_name(node)
            return f"XNNPACK takes the layer for a plain linear one, without its {name}"
    return None


def _softmax(group: Group) -> str | None:
    for node in group.nodes:
        is_softmax = op_name(node) == "aten._softmax.default"
        if is_softmax and node.all_input_nodes[0] in group.around.channels_last:
            return "XNNPACK may hold the image in channels-last, and its softmax is over channels"
    return None


def _rank(group: Group) -> str | None:
    for node in group.nodes:
        most = max(map(rank, (node, *node.all_input_nodes)), default=0)
        if most > MAX_RANK:
            return f"a tensor of rank {most}, XNNPACK has at most {MAX_RANK}"
    return None


def _changed_weight(group: Group) -> str | None:
    # Weights are packed once, when the program is loaded.
    for constant in group.constants:
        if constant in group.around.mutated:
            return f"needs a fixed weight, but the model changes the buffer {constant.name}"
    return None


def _shared_weight(group: Group) -> str | None:
    # XNNPACK's passes add a dimension to the weight itself, once for every user.
    if any(map(is_convolution_1d, group.nodes)):
        for constant in group.constants:
            if len(constant.users) > 1:
                return f"a 1d convolution whose weight {constant.name} has other users"
    return None


def _unknown_order(group: Group) -> str | None:
    for source, order in _permuted(group):
        if order != CHANNELS_LAST_ORDER:
            return f"{source.name} has the dim order {list(order)}, unknown to XNNPACK"
    return None


def _ambiguous_order(group: Group) -> str | None:
    """An image of one pixel or one channel is contiguous and channels-last at once.

    XNNPACK's passes take it for contiguous; its runtime goes by the dim order.
    """
    for source, _ in _permuted(group):
        if rank(source) == 4:
            _, channels, height, width = source.meta["val"].shape
            if is_one(channels) or (is_one(height) and is_one(width)):
                return f"{source.name} is contiguous, but its dim order says channels-last"
    return None


def _read_result(nodes: Sequence[Node]) -> str | None:
    """The delegate loses track of the dim order of a quantized layer's image that is a result.

    What reads it in the same call is wrong, with no error where C, H and W coincide.
    """
    inside = set(nodes)
    for node in nodes:
        if is_dequantize(node) and rank(node) == 4:
            readers = [user in inside for user in node.users]
            if any(readers) and not all(readers):
                return f"it hands out {node.name}, an image that it also reads"
    return None


def _weight_both_ways(nodes: Sequence[Node]) -> str | None:
    """The delegate lays a weight out once, for a convolution or for a transposed one."""
    ways: dict[object, set[object]] = {}
    for node in nodes:
        if op_name(node) == _CONVOLUTION:
            weight: object = node.args[1]
            while isinstance(weight, Node) and is_dequantize(weight):
                weight = weight.args[0]
            ways.setdefault(weight, set()).add(node.args[6])
    for weight, transposed in ways.items():
        if len(transposed) > 1:
            return f"a convolution and a transposed one share {weight}"
    return None


def _permuted(group: Group) -> Iterable[tuple[Node, tuple[int, ...]]]:
    """Yield the nodes around a group whose tensors are not contiguous, with their dim orders."""
    for node in group.nodes:
        for source in (node, *node.all_input_nodes):
            value = source.meta.get("val")
            if isinstance(value, torch.Tensor):
                order = dim_order(value)
                if order != tuple(range(len(order))):
                    yield source, order


def is_convolution_1d(node: Node) -> bool:
    """Whether a node convolves signals of one dimension."""
    return op_name(node) == _CONVOLUTION and rank(node) == 3


QUIRKS: tuple[Quirk, ...] = (
    _quirk("addmm scales", "aten.addmm.default", _addmm_scales, "unsupported"),
    _quirk("addmm bias", "aten.addmm.default", _addmm_bias, "unsupported"),
    _quirk("gelu by tanh", "aten.gelu.default", _gelu_by_tanh, "unsupported"),
    _quirk("prelu of no image", "aten.prelu.default", _prelu, "rank"),
    _quirk("pool of no image", _POOLS, _pool, "unbatched"),
    _quirk("hardtanh of one bound", "aten.hardtanh.default", _one_bound, "unsupported"),
    _quirk("max along a dim", "aten.max.dim", _max_dim, "unsupported"),
    _quirk("reshape to dynamic sizes", (*_RESHAPES, _CONVOLUTION), _reshape, "dynamic"),
    _quirk("copy beside its source", _COPIES, _copy, "shared"),
    _quirk("output padding", _CONVOLUTION, _output_padding, "unsupported"),
    _quirk("slice from before", "aten.slice_copy.Tensor", _slice_start, "negative-index"),
    _quirk("resize by rounded factors", "aten.upsample_bilinear2d.vec", _resize, "unsupported"),
    Quirk("linear with more in it", tuple(_PRODUCTS), _linear_parts),
    Quirk("quantized dim order", (), unfit_dim_order, "dim-order"),
    Quirk("conversion beside quantized", (), unfit_conversion, "dim-order"),
    Quirk("float activation", (), unfit_float_activation, "quantization"),
    Quirk("pad of quantized", ("aten.constant_pad_nd.default",), unfit_pad, "quantization"),
    Quirk("float weight", (), unfit_float_weight, "quantization"),
    Quirk("quantized activation", (), unfit_activation, "quantization"),
    Quirk("symmetric activation", (), unfit_symmetry, "quantization"),
    Quirk("quantized weight", (), unfit_weight, "quantization"),
    Quirk("quantized weight of float16", (), unfit_half, "quantization"),
    Quirk("dynamically quantized image", (), unfit_dynamic_image, "dim-order"),
    Quirk("softmax of an image", ("aten._softmax.default",), _softmax, "dim-order"),
    Quirk("rank", (), _rank, "rank"),
    Quirk("changed weight", (), _changed_weight, "changed"),
    Quirk("shared weight of a signal", (_CONVOLUTION,), _shared_weight, "shared"),
    Quirk("unknown dim order", (), _unknown_order, "dim-order"),
    Quirk("ambiguous dim order", (), _ambiguous_order, "dim-order"),
)
"""All, in the order in which they are asked."""

CALL_QUIRKS: tuple[CallQuirk, ...] = (
    CallQuirk("image read and handed out", _read_result),
    CallQuirk("weight of both ways", _weight_both_ways),
)
