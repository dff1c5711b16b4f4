"""Estimated times from shapes alone: the roofline model.

An op takes the longer of its arithmetic at the backend's rate and its memory traffic at the
machine's bandwidth (Williams, Waterman, Patterson, "Roofline", CACM 2009), plus a constant per op.
It needs no measurement and knows every backend; the rates are coarse, so use it to rank, not to
promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from ggml_delegate.aten_ops import Trait, base_name, traits
from ggml_delegate.in_place import may_update_in_place
from ggml_delegate.registry import HALF_DTYPES
from orchestrator.backends.base import Estimates
from orchestrator.graph.quantized import is_choose_qparams, is_dequantize, is_quantization
from orchestrator.graph.queries import expected_shape, is_getitem, is_view, op_name, tensor_results
from orchestrator.graph.schemes import layer_scheme, stored_bytes

_TRANSCENDENTAL_FLOPS = 12.0
_FLOAT_BYTES = 4
_NARROW = (torch.int8, torch.uint8)


def estimate_ns(
    nodes: Sequence[Node],
    estimates: Estimates,
    threads: int,
    known_ns: Mapping[Node, float] | None = None,
) -> float:
    """The time of an atom on a backend, in nanoseconds.

    Between two machines of the kind that rates are given for, one takes 0.7 and the other 1.6 times
    as long; others differ by a factor that is much the same for all backends, so that it changes no
    plan. What estimates are off by is what `benchmarks/estimates.py` finds: products by a factor of
    1.35, small ops by one of 2.5.

    Args:
        nodes: the atom's.
        estimates: of the backend.
        threads: that the backend uses.
        known_ns: of nodes whose time is known: of conds, what their costlier branch takes.
    """
    rates = estimates.rates
    scale = max(threads, 1) ** 0.85 if estimates.parallel else 1.0
    if estimates.fuses:
        nodes = [node for node in nodes if not _is_looked_up(node)]
    if estimates.fuses and _is_quantized(nodes):
        return _quantized_ns(nodes, estimates, scale)
    if any(map(_is_half, nodes)):
        scale /= estimates.half
    total = 0.0
    for position, node in enumerate(nodes):
        if is_view(node) or is_getitem(node):
            continue
        if known_ns and node in known_ns:
            total += known_ns[node]
            continue
        rate = rates[family(node)]
        if estimates.updates_in_place and may_update_in_place(node):
            total += 2 * _changed_bytes(node) / rate.gbytes / scale + rate.op_ns
            continue
        moved = _bytes(node, estimates)
        traffic = moved / rate.gbytes if position == 0 or not estimates.fuses else 0.0
        ops = estimates.expanded_ops.get(op_name(node), 1)
        total += ops * (max(flops(node) / rate.gflops, traffic) / scale + rate.op_ns)
    return total


def _is_quantized(nodes: Sequence[Node]) -> bool:
    """Whether nodes are a layer between its dequantize and its quantize, or part of one."""
    return len(nodes) > 1 and any(map(is_dequantize, nodes))


def _is_looked_up(node: Node) -> bool:
    """Whether a node dequantizes a table, of which a delegate expands only the rows it reads."""
    if not is_dequantize(node) or not _is_constant(node.args[0]):
        return False
    return all(Trait.LOOKUP in traits(op_name(user)) for user in node.users)


def _quantized_ns(nodes: Sequence[Node], estimates: Estimates, scale: float) -> float:
    """What a delegate takes that computes a group with integers: it reads and writes these only.

    One that expands weights computes with floats, and writes and reads what each node makes; but
    not where activations become integers in every run.
    """
    table, inside = estimates.rates, set(nodes)
    read = {source for node in nodes for source in node.all_input_nodes} - inside
    weights = {node for node in nodes if is_dequantize(node) and _is_constant(node.args[0])}
    moved = float(sum(stored_bytes(node) for node in read if _is_constant(node)))
    expands = math.isfinite(estimates.integers_per_ns) and not any(map(_is_dynamic, nodes))
    expanded = work = calls = 0.0
    if expands:
        expanded = sum(map(_elements, weights)) / estimates.integers_per_ns
        moved += sum(2 * _FLOAT_BYTES * _elements(node) for node in inside - weights)
        passes = sum(is_quantization(node) for node in inside - weights)
        calls += passes * table["other"].op_ns
    else:
        written = {node for node in nodes if not inside.issuperset(node.users)}
        moved += sum(_size(node) for node in read | written if not _is_constant(node))
    traffic = moved / table["int8 product"].gbytes
    product = "product" if expands else "int8 product"
    if not expands and "int4 product" in table and any(map(_has_four_bits, nodes)):
        product = "int4 product"
    for node in nodes:
        if is_quantization(node) or is_view(node) or is_getitem(node):
            continue
        rates = table[product if family(node) == "product" else family(node)]
        work += flops(node) / rates.gflops
        calls += rates.op_ns
    return max(work, traffic, expanded) / scale + calls


def _is_dynamic(node: Node) -> bool:
    """Whether a node belongs to a layer whose activations are quantized in every run."""
    scheme = layer_scheme(node)
    return is_choose_qparams(node) or (scheme is not None and scheme.activations == "dynamic")


def _has_four_bits(node: Node) -> bool:
    scheme = layer_scheme(node)
    return scheme is not None and scheme.bits <= 4


def _is_constant(value: object) -> bool:
    return isinstance(value, Node) and value.op == "placeholder" and _is_tensor(value)


def family(node: Node) -> str:
    """The family of a node: product, depthwise or other."""
    name = op_name(node)
    if base_name(name) == "convolution" and _groups(node) > 1:
        return "depthwise"
    return "product" if traits(name) & (Trait.PRODUCT | Trait.RECURRENT) else "other"


def atom_family(nodes: Sequence[Node]) -> str:
    """The family of an atom's nodes: that of the first, of a quantized group its product's."""
    if not _is_quantized(nodes):
        return family(nodes[0])
    kinds = {family(node) for node in nodes}
    return "int8 product" if "product" in kinds else min(kinds)


def flops(node: Node) -> float:
    """Floating-point operations of a node, a multiply-add counting as two."""
    out = _elements(node)
    name, kind = base_name(op_name(node)), traits(op_name(node))
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
    if Trait.RECURRENT in kind:
        return _recurrent_flops(node)
    if Trait.LOOKUP in kind:
        return out
    inputs = [expected_shape(n.meta["val"]) for n in node.all_input_nodes if _is_tensor(n)]
    work = max([out, *(math.prod(shape) for shape in inputs)], default=out)
    return work * (_TRANSCENDENTAL_FLOPS if Trait.TRANSCENDENTAL in kind else 1.0)


def _recurrent_flops(node: Node) -> float:
    """Every weight meets every step of every sequence; so does every gate's function."""
    rows = math.prod(_operand(node, 0)[:2])
    params: Any = node.args[2]
    weights = [shape for p in params if len(shape := expected_shape(p.meta["val"])) > 1]
    products = sum(2.0 * math.prod(shape) for shape in weights)
    gates = sum(shape[0] for shape in weights) / 2.0  # from the input and from the state
    return rows * (products + gates * _TRANSCENDENTAL_FLOPS)


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


def _is_half(node: Node) -> bool:
    return any(value.dtype in HALF_DTYPES for value in tensor_results(node))


def _elements(node: Node) -> float:
    return float(sum(math.prod(expected_shape(item)) for item in tensor_results(node)))


def _size(node: Node) -> float:
    sizes = (math.prod(expected_shape(item)) * item.element_size() for item in tensor_results(node))
    return float(sum(sizes))


def _changed_bytes(node: Node) -> float:
    """What a node that changes a part of a tensor writes: the largest of its other operands."""
    sizes = [_size(source) for source in node.all_input_nodes if source is not node.args[0]]
    return max(sizes, default=0.0)


def _bytes(node: Node, estimates: Estimates) -> float:
    if Trait.LOOKUP in traits(op_name(node)):  # reads rows of a table, as many as it gives
        scheme = layer_scheme(node)
        if scheme is None:
            return 2 * _size(node)
        return _size(node) + _elements(node) * scheme.bits / 8 * estimates.table_bytes
    tensors = [n.meta["val"] for n in node.all_input_nodes if _is_tensor(n)]
    value = node.meta.get("val")
    tensors += [value] if isinstance(value, torch.Tensor) else []
    narrow = estimates.integer_bytes if is_quantization(node) else 1.0
    return float(
        sum(
            math.prod(expected_shape(t)) * t.element_size() * (narrow if t.dtype in _NARROW else 1)
            for t in tensors
        )
    )
