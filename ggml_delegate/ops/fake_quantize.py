"""Activations rounded to integers of a scale that they themselves give, and back to floats.

This is how PT2E and torchao write a dynamically quantized layer: a scale and a zero point are
chosen, the activation is quantized and dequantized by them, and a float layer follows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import Node

from ggml_delegate import ir
from ggml_delegate.builder import Builder, LoweringError
from ggml_delegate.node_view import Constants, NodeView, node_value, op_name
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register

_INT8 = torch.iinfo(torch.int8)


@dataclass(frozen=True)
class FakeQuantized:
    """What a dequantize makes of a float tensor.

    source: that tensor. inner: the choice of the scale and the quantize, which have no other use.
    per_tensor: whether all elements share a scale; else those of a row along the last dimension do.
    low, high: the least and the largest integer. eps: the least scale.
    """

    source: Node
    inner: tuple[Node, Node]
    per_tensor: bool
    low: int
    high: int
    eps: float


def fake_quantized(node: Node, constants: Constants | None = None) -> FakeQuantized | None:
    """Return what a dequantize does together with what is before it; None for any other node.

    constants: of a delegate's program, where ExecuTorch has given each reader of a constant a copy.
    """
    ways = _WAYS.get(op_name(node))
    if ways is None:
        return None
    given = _arguments(node)
    quantize, scale, zero_point = given["input"], given["scale"], given["zero_point"]
    if op_name(quantize) != ways.quantize or set(quantize.users) != {node}:
        return None
    before = _arguments(quantize)
    choice = _chosen(scale, zero_point)
    if choice is None or op_name(choice) != ways.choose:
        return None
    readers = {user for result in choice.users for user in result.users}
    source = before["input"]
    same = all(before[name] is given[name] for name in ("scale", "zero_point"))
    value = node_value(source)
    if (
        not same
        or readers != {quantize, node}
        or not _alike(_arguments(choice)["input"], source, constants)
        or value.dtype != torch.float32
        or node_value(node).dtype != torch.float32
        or node_value(quantize).dtype != torch.int8
    ):
        return None
    found = ways.read(_arguments(choice), before, given, value)
    return None if found is None else FakeQuantized(source, (choice, quantize), *found)


def _alike(node: Node, other: Node, constants: Constants | None) -> bool:
    if node is other or constants is None or node not in constants or other not in constants:
        return node is other
    return torch.equal(constants.tensor(node), constants.tensor(other))


def _arguments(node: Node) -> dict[str, Any]:
    target: Any = node.target
    given = {each.name: each.default_value for each in target._schema.arguments}
    return given | dict(zip(given, node.args, strict=False)) | node.kwargs


def _chosen(scale: object, zero_point: object) -> Node | None:
    """What both are results of, in this order."""
    if not isinstance(scale, Node) or not isinstance(zero_point, Node):
        return None
    made = [each.args for each in (scale, zero_point) if each.target is operator.getitem]
    if len(made) != 2 or made[0][0] is not made[1][0] or [made[0][1], made[1][1]] != [0, 1]:
        return None
    return made[0][0] if isinstance(made[0][0], Node) else None


_Arguments = dict[str, Any]
_Found = tuple[bool, int, int, float]


def _per_tensor(
    choice: _Arguments, quantize: _Arguments, dequantize: _Arguments, value: torch.Tensor
) -> _Found | None:
    limits = {(each["quant_min"], each["quant_max"]) for each in (choice, quantize, dequantize)}
    if len(limits) != 1 or choice["dtype"] != torch.int8:
        return None
    low, high = limits.pop()
    return _found(True, low, high, choice["eps"])


def _affine(
    choice: _Arguments, quantize: _Arguments, dequantize: _Arguments, value: torch.Tensor
) -> _Found | None:
    calls = (choice, quantize, dequantize)
    rows = [1] * (value.dim() - 1)
    blocks = [list(each["block_size"]) for each in calls]
    limits = {
        (
            _INT8.min if each["quant_min"] is None else each["quant_min"],
            _INT8.max if each["quant_max"] is None else each["quant_max"],
        )
        for each in calls
    }
    eps = torch.finfo(torch.float32).smallest_normal if choice["eps"] is None else choice["eps"]
    if (
        choice["mapping_type"] != "ASYMMETRIC"
        or value.dim() == 0
        or any(block[:-1] != rows or not _is(block[-1], value.shape[-1]) for block in blocks)
        or len(limits) != 1
        or choice["target_dtype"] != torch.int8
        or choice["scale_dtype"] not in (None, torch.float32)
    ):
        return None
    low, high = limits.pop()
    return _found(False, low, high, eps)


def _is(length: object, size: int | torch.SymInt) -> bool:
    """Whether a length, perhaps a node of a size, is a size."""
    value = node_value(length) if isinstance(length, Node) else length
    return str(value) == str(size)


def _found(per_tensor: bool, low: object, high: object, eps: object) -> _Found | None:
    if not isinstance(low, int) or not isinstance(high, int) or not isinstance(eps, float):
        return None
    fits = _INT8.min <= low < high <= _INT8.max and eps > 0
    return (per_tensor, low, high, eps) if fits else None


@dataclass(frozen=True)
class _Ways:
    choose: str
    quantize: str
    read: Callable[[_Arguments, _Arguments, _Arguments, torch.Tensor], _Found | None]


_WAYS = {
    "quantized_decomposed.dequantize_per_tensor.tensor": _Ways(
        "quantized_decomposed.choose_qparams.tensor",
        "quantized_decomposed.quantize_per_tensor.tensor",
        _per_tensor,
    ),
    "torchao.dequantize_affine.default": _Ways(
        "torchao.choose_qparams_affine.default", "torchao.quantize_affine.default", _affine
    ),
}
_REFUSED = Reason(
    "quantization",
    "of quantized activations, ggml takes int8 with a fixed scale, or with scales that they "
    "themselves give, per row or per tensor",
)


def check_fake_quantized(node: Node) -> Reason | None:
    """None for a dequantize that ends such a group."""
    return None if fake_quantized(node) is not None else _REFUSED


def lower_fake_quantized(view: NodeView, builder: Builder) -> None:
    """One FakeQuantize op for the whole group, and for others that do the same to its input."""
    node = view.fx
    found = fake_quantized(node, view.constants)
    if found is None:
        raise LoweringError(f"{node.name} has lost the quantize before it")
    op = ir.FakeQuantize(perTensor=found.per_tensor, low=found.low, high=found.high, eps=found.eps)
    sizes = list(node_value(node).shape)
    builder.alias(node, builder.once(op, [builder.value(found.source)], sizes))


class _InnerRule(OpRule):
    """What comes before the dequantize, which lowers it all."""

    inner_dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.int8, torch.int64, torch.float64)

    def check(self, node: NodeView) -> Reason | None:
        readers = [*node.fx.users, *(each for user in node.fx.users for each in user.users)]
        for reader in readers:
            found = fake_quantized(reader)
            if found is not None and node.fx in found.inner:
                return None
        return _REFUSED


@register
class ChooseQparamsRule(_InnerRule):
    """The scale and the zero point of an activation."""

    targets = tuple(ways.choose for ways in _WAYS.values())
    outputs_via_getitem = True

    def defined_outputs(self, node: NodeView) -> set[int]:
        return {0, 1}

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Nothing reads the results: the input stands in for them."""
        source = builder.value(node.node(0))
        builder.define(node.fx, {0: source, 1: source})


@register
class QuantizeRule(_InnerRule):
    """An activation's integers."""

    targets = tuple(ways.quantize for ways in _WAYS.values())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Nothing but the dequantize reads them."""


@register
class DequantizeTensorRule(_InnerRule):
    """The dequantize of an activation with one scale; `DequantizeRule` has those with several."""

    targets = ("quantized_decomposed.dequantize_per_tensor.tensor",)

    def check(self, node: NodeView) -> Reason | None:
        return check_fake_quantized(node.fx)

    def lower(self, node: NodeView, builder: Builder) -> None:
        lower_fake_quantized(node, builder)
