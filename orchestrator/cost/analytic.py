"""Estimated times from shapes alone: the roofline model.

An op takes the longer of its arithmetic at the backend's rate and its memory traffic at the
machine's bandwidth (Williams, Waterman, Patterson, "Roofline", CACM 2009), plus a constant per op.
It needs no measurement and knows every backend; the rates are coarse, so use it to rank, not to
promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from orchestrator.graph.branches import PRICE
from orchestrator.graph.quantized import is_dequantize, is_quantization
from orchestrator.graph.queries import expected_shape, is_getitem, is_view, op_name


@dataclass(frozen=True)
class Rates:
    """What one thread of a backend does.

    gflops: multiply-adds count as two. gbytes: memory bandwidth in GB/s. op_ns: per op.
    spread: by what fraction a time may be less than estimated.
    """

    gflops: float
    gbytes: float
    op_ns: float
    spread: float


# Op families by the ATen op's name (without namespace and overload).
_PRODUCTS = {"convolution", "linear", "addmm", "mm", "bmm", "scaled_dot_product_attention"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_TRANSCENDENTAL = {
    "gelu",
    "sigmoid",
    "tanh",
    "silu",
    "exp",
    "log",
    "_softmax",
    "_log_softmax",
    "elu",
    "softplus",
    "pow",
    "native_layer_norm",
    "layer_norm",
    "native_group_norm",
    "group_norm",
    "rms_norm",
}
_TRANSCENDENTAL_FLOPS = 12.0
# Ops that read no more of a table than they give.
_LOOKUPS = {"embedding", "embedding_byte", "embedding_4bit", "embedding_2bit"}

# One thread, float32, an x86-64 core with AVX-512 in a cloud: between two such machines, of which
# one takes 0.7 and the other 1.6 times as long. Measured on this project's own benchmarks; other
# machines differ by a factor that is much the same for all, so that it changes no plan. The spreads
# are what `benchmarks/estimates.py` finds: products are off by a factor of 1.35, small ops by one
# of 2.5.
RATES: dict[str, dict[str, Rates]] = {
    "xnnpack": {
        "product": Rates(90.0, 16.0, 300.0, 0.25),
        "int8 product": Rates(250.0, 16.0, 300.0, 0.35),
        "depthwise": Rates(36.0, 16.0, 300.0, 0.35),
        "other": Rates(16.0, 16.0, 200.0, 0.6),
    },
    "ggml": {
        "product": Rates(80.0, 16.0, 200.0, 0.25),
        "int8 product": Rates(80.0, 16.0, 200.0, 0.35),
        "depthwise": Rates(36.0, 16.0, 200.0, 0.35),
        "other": Rates(16.0, 16.0, 150.0, 0.6),
    },
    "portable": {
        "product": Rates(1.6, 4.0, 250.0, 0.6),
        "int8 product": Rates(1.6, 4.0, 250.0, 0.6),
        "depthwise": Rates(0.6, 4.0, 250.0, 0.6),
        "other": Rates(1.0, 2.0, 200.0, 0.6),
    },
}
# For a backend that nobody has measured.
DEFAULT_RATES = RATES["ggml"]

# A delegate call: arguments checked and handed over.
CALL_OVERHEAD_NS = {"ggml": 1_000.0, "xnnpack": 1_500.0}
DEFAULT_CALL_OVERHEAD_NS = 1_500.0
# Changing a tensor's dim order, ns per byte of the tensor.
CONVERT_NS_PER_BYTE = 0.175


def estimate_ns(nodes: Sequence[Node], backend: str, threads: int) -> float:
    """The time of an atom on a backend, in nanoseconds.

    Args:
        nodes: the atom's.
        backend: a name; one without rates of its own counts as ggml.
        threads: that the backend uses; arithmetic scales with them, kernels of ExecuTorch do not.
    """
    table = RATES.get(backend, DEFAULT_RATES)
    scale = 1.0 if backend == "portable" else max(threads, 1) ** 0.85
    if backend != "portable" and _is_quantized(nodes):
        return _quantized_ns(nodes, table, scale)
    total = 0.0
    for position, node in enumerate(nodes):
        if is_view(node) or is_getitem(node):
            continue
        if PRICE in node.meta:
            total += node.meta[PRICE]
            continue
        rates = table[family(node)]
        # What follows in an atom is fused: it costs arithmetic, no further memory traffic.
        traffic = _bytes(node) / rates.gbytes if position == 0 or backend == "portable" else 0.0
        total += max(flops(node) / rates.gflops, traffic) / scale + rates.op_ns
    return total


def _is_quantized(nodes: Sequence[Node]) -> bool:
    """Whether nodes are a layer between its dequantize and its quantize, or part of one."""
    return len(nodes) > 1 and any(map(is_dequantize, nodes))


def _quantized_ns(nodes: Sequence[Node], table: Mapping[str, Rates], scale: float) -> float:
    """What a delegate takes that computes a group with integers: it reads and writes these only."""
    inside = set(nodes)
    read = {source for node in nodes for source in node.all_input_nodes} - inside
    written = {node for node in nodes if not inside.issuperset(node.users)}
    traffic = sum(map(_size, read | written)) / table["int8 product"].gbytes
    work = calls = 0.0
    for node in nodes:
        if is_quantization(node) or is_view(node) or is_getitem(node):
            continue
        rates = table["int8 product" if family(node) == "product" else family(node)]
        work += flops(node) / rates.gflops
        calls += rates.op_ns
    return max(work, traffic) / scale + calls


def relative_spread(backend: str, kind: str) -> float:
    """By what fraction a family of ops may take less on a backend than estimated."""
    return RATES.get(backend, DEFAULT_RATES)[kind].spread


def family(node: Node) -> str:
    """The family of a node: product, depthwise or other."""
    name = _base_name(node)
    if name == "convolution" and _groups(node) > 1:
        return "depthwise"
    return "product" if name in _PRODUCTS | _RECURRENT else "other"


def atom_family(nodes: Sequence[Node]) -> str:
    """The family of an atom's nodes: that of the first, of a quantized group its product's."""
    if not _is_quantized(nodes):
        return family(nodes[0])
    kinds = {family(node) for node in nodes}
    return "int8 product" if "product" in kinds else min(kinds)


def flops(node: Node) -> float:
    """Floating-point operations of a node, a multiply-add counting as two."""
    out = _elements(node)
    name = _base_name(node)
    if name == "convolution":
        per_output = math.prod(_operand(node, 1)[1:])
        if node.args[6]:  # transposed: every input element meets every weight of its channel
            return 2.0 * math.prod(_operand(node, 0)) * per_output
        return 2.0 * out * per_output
    if name in ("linear", "mm", "bmm"):
        return 2.0 * out * _operand(node, 0)[-1]
    if name == "addmm":
        return 2.0 * out * _operand(node, 1)[-1]
    if name == "scaled_dot_product_attention":
        return 4.0 * math.prod(_operand(node, 0)) * _operand(node, 1)[-2]
    if name in _RECURRENT:
        return _recurrent_flops(node)
    inputs = [expected_shape(n.meta["val"]) for n in node.all_input_nodes if _is_tensor(n)]
    work = max([out, *(math.prod(shape) for shape in inputs)], default=out)
    return work * (_TRANSCENDENTAL_FLOPS if name in _TRANSCENDENTAL else 1.0)


def _recurrent_flops(node: Node) -> float:
    """Every weight meets every step of every sequence; so does every gate's function."""
    rows = math.prod(_operand(node, 0)[:2])
    params: Any = node.args[2]
    weights = [shape for p in params if len(shape := expected_shape(p.meta["val"])) > 1]
    products = sum(2.0 * math.prod(shape) for shape in weights)
    gates = sum(shape[0] for shape in weights) / 2.0  # from the input and from the state
    return rows * (products + gates * _TRANSCENDENTAL_FLOPS)


def _base_name(node: Node) -> str:
    parts = op_name(node).split(".")
    return parts[1].removesuffix("_copy") if len(parts) > 1 else parts[0]


def _groups(node: Node) -> int:
    groups = node.args[8] if len(node.args) > 8 else 1
    return groups if isinstance(groups, int) else 1


def _operand(node: Node, position: int) -> Sequence[int]:
    """The shape of an argument; several of an op's may be one node."""
    argument = node.args[position]
    assert isinstance(argument, Node)
    return expected_shape(argument.meta["val"])


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _elements(node: Node) -> float:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return float(
        sum(math.prod(expected_shape(item)) for item in values if isinstance(item, torch.Tensor))
    )


def _size(node: Node) -> float:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return float(
        sum(
            math.prod(expected_shape(item)) * item.element_size()
            for item in values
            if isinstance(item, torch.Tensor)
        )
    )


def _bytes(node: Node) -> float:
    if _base_name(node) in _LOOKUPS:
        return 2 * _size(node)
    tensors = [n.meta["val"] for n in node.all_input_nodes if _is_tensor(n)]
    value = node.meta.get("val")
    tensors += [value] if isinstance(value, torch.Tensor) else []
    return float(sum(math.prod(expected_shape(t)) * t.element_size() for t in tensors))
