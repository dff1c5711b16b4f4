"""Rules for normalisation: layer, RMS, group, instance, and batch statistics that are fixed."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register
from ggml_delegate.scalars import float32


def _parameter(node: NodeView, builder: Builder, index: int, name: str) -> int | None:
    """The tensor number of an optional weight or bias."""
    parameter = node.node(index, name)
    return None if parameter is None else builder.value(parameter)


class _NormRule(OpRule):
    """A norm of the tensor that is argument 0; a native op's other results are not computed."""

    def check(self, node: NodeView) -> Reason | None:
        """Every tensor that the registry admits."""
        return None

    def _normalize(
        self, op: Any, node: NodeView, builder: Builder, weight: int, bias: int | None
    ) -> None:
        """Emit an op; weight, bias: which arguments of the node they are."""
        inputs = [builder.value(node.node(0)), _parameter(node, builder, weight, "weight")]
        if bias is not None:
            inputs.append(_parameter(node, builder, bias, "bias"))
        if self.outputs_via_getitem:
            result = builder.temp(op, inputs, node.out_sizes(), node.out_dtype())
            builder.define(node.fx, {0: result})
        else:
            builder.emit(op, inputs, node.fx)


@register
class LayerNormRule(_NormRule):
    """aten.layer_norm."""

    targets = ("aten.layer_norm.default",)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One LayerNorm op."""
        op = ir.LayerNorm(
            rank=len(node.arg(1, "normalized_shape")), eps=float32(node.arg(4, "eps", 1e-5))
        )
        self._normalize(op, node, builder, weight=2, bias=3)


@register
class NativeLayerNormRule(LayerNormRule):
    """aten.native_layer_norm, which has the same arguments."""

    targets = ("aten.native_layer_norm.default",)
    outputs_via_getitem = True


@register
class RmsNormRule(_NormRule):
    """aten.rms_norm."""

    targets = ("aten.rms_norm.default",)
    preserve = ("aten.rms_norm.default",)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One RmsNorm op."""
        eps = node.arg(3, "eps")
        if eps is None:
            eps = torch.finfo(torch.float32).eps
        op = ir.RmsNorm(rank=len(node.arg(1, "normalized_shape")), eps=float32(eps))
        self._normalize(op, node, builder, weight=2, bias=None)


@register
class GroupNormRule(_NormRule):
    """aten.group_norm."""

    targets = ("aten.group_norm.default",)

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One GroupNorm op."""
        op = ir.GroupNorm(groups=node.arg(1, "num_groups"), eps=float32(node.arg(4, "eps", 1e-5)))
        self._normalize(op, node, builder, weight=2, bias=3)


@register
class NativeGroupNormRule(_NormRule):
    """aten.native_group_norm."""

    targets = ("aten.native_group_norm.default",)
    outputs_via_getitem = True

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One GroupNorm op."""
        op = ir.GroupNorm(groups=node.arg(6, "group"), eps=float32(node.arg(7, "eps")))
        self._normalize(op, node, builder, weight=1, bias=2)


@register
class InstanceNormRule(_NormRule):
    """aten.instance_norm by the input's own statistics: a group norm of one channel per group."""

    targets = ("aten.instance_norm.default",)
    preserve = ("aten.instance_norm.default",)

    def check(self, node: NodeView) -> Reason | None:
        """Refuses running statistics and a dynamic number of channels."""
        if not node.arg(5, "use_input_stats") or node.node(3) is not None:
            return Reason("training", "instance_norm with running statistics")
        if not isinstance(node.sizes(0)[1], int):
            return Reason("dynamic", "a dynamic number of channels")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One GroupNorm op."""
        op = ir.GroupNorm(groups=node.sizes(0)[1], eps=float32(node.arg(7, "eps")))
        self._normalize(op, node, builder, weight=1, bias=2)


@register
class BatchNormRule(OpRule):
    """Batch normalisation by fixed statistics, where it could not be folded into a neighbour."""

    targets = ("aten._native_batch_norm_legit_no_training.default",)
    outputs_via_getitem = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses parameters that are computed."""
        for index in (1, 2, 3, 4):
            if node.node(index) is not None and not node.is_constant(index):
                return Reason("computed", f"{op_name(node.fx)} with parameters that are computed")
        return None

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One ChannelAffine op."""
        mean, variance = node.constant(3), node.constant(4)
        assert mean is not None and variance is not None
        scale = torch.rsqrt(variance.double() + node.arg(6, "eps"))
        if (weight := node.constant(1)) is not None:
            scale = scale * weight.double()
        shift = -mean.double() * scale
        if (bias := node.constant(2)) is not None:
            shift = shift + bias.double()
        inputs = [
            builder.value(node.node(0)),
            builder.constant(scale.float()),
            builder.constant(shift.float()),
        ]
        result = builder.temp(ir.ChannelAffine(), inputs, node.out_sizes(), node.out_dtype())
        builder.define(node.fx, {0: result})
