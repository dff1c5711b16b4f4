"""Rules for ops that make images of another size: interpolation, pixel shuffling."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView, op_name
from ggml_delegate.ops.shape import inexpressible
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register
from ggml_delegate.scalars import float32, is_number


@register
class ResizeRule(OpRule):
    """upsample_nearest2d and upsample_bilinear2d."""

    targets = ("aten.upsample_nearest2d.vec", "aten.upsample_bilinear2d.vec")
    preserve = targets

    def check(self, node: NodeView) -> Reason | None:
        """Refuses factors that are only known at run time."""
        factors = self._factors(node)
        if factors is not None and not all(is_number(f) and f > 0 for f in factors):
            return Reason("run-time", "the factor of a resize is only known at run time")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """One Resize2d op."""
        bilinear = "bilinear" in op_name(node.fx)
        # Torch takes the given factor, not the one that the rounded sizes have.
        factors = self._factors(node)
        step_h, step_w = (0.0, 0.0) if factors is None else (float32(1 / f) for f in factors)
        op = ir.Resize2d(
            kind=ir.ResizeKind.Bilinear if bilinear else ir.ResizeKind.Nearest,
            alignCorners=bool(node.arg(2, "align_corners")) if bilinear else False,
            stepH=step_h,
            stepW=step_w,
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)

    @staticmethod
    def _factors(node: NodeView) -> list[Any] | None:
        position = 3 if "bilinear" in op_name(node.fx) else 2
        factors: list[Any] | None = node.arg(position, "scale_factors", None)
        return factors


@register
class PixelShuffleRule(OpRule):
    """pixel_shuffle and pixel_unshuffle: channels to pixels and back."""

    targets = ("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default")

    def check(self, node: NodeView) -> Reason | None:
        """Refuses ranks whose parts the runtime has no room for."""
        if not 3 <= node.rank(0) <= 6:
            return Reason("rank", f"pixel_shuffle of rank {node.rank(0)}")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Reshape, Permute, Reshape."""
        factor = int(node.arg(1, "factor"))
        rank = node.rank(0)
        batch, batch_sizes = list(range(rank - 3)), node.sizes(0)[:-3]
        if "unshuffle" in op_name(node.fx):
            _, h, w = node.out_sizes()[-3:]
            channels = node.sizes(0)[-3]
            apart = [channels, h, factor, w, factor]
            order = [0, 2, 4, 1, 3]
        else:
            channels = node.out_sizes()[-3]
            _, h, w = node.sizes(0)[-3:]
            apart = [channels, factor, factor, h, w]
            order = [0, 3, 1, 4, 2]
        parts = builder.temp(
            ir.Reshape(), [builder.value(node.node(0))], [*batch_sizes, *apart], torch.float32
        )
        dims = [*batch, *(rank - 3 + i for i in order)]
        sizes = [*batch_sizes, *(apart[i] for i in order)]
        turned = builder.temp(ir.Permute(dims=dims), [parts], sizes, torch.float32)
        builder.emit(ir.Reshape(), [turned], node.fx)


@register
class RollRule(OpRule):
    """roll along dimensions: the end of each comes before its start."""

    targets = ("aten.roll.default",)
    preserve = targets
    integer_inputs = True

    def check(self, node: NodeView) -> Reason | None:
        """Refuses shifts and rolled sizes that are only known at run time."""
        shifts, dims = self._arguments(node)
        if len(shifts) != len(dims) or not all(isinstance(shift, int) for shift in shifts):
            return Reason(
                "run-time", "roll of all elements in a row, or by shifts only known at run time"
            )
        if not all(isinstance(node.sizes(0)[dim], int) for dim in dims):
            return Reason("dynamic", "roll of a dynamic size")
        return inexpressible(node.out_sizes())

    def lower(self, node: NodeView, builder: Builder) -> None:
        """Two Slice ops and a Concat for each dimension."""
        shifts, dims = self._arguments(node)
        value, dtype = builder.value(node.node(0)), node.out_dtype()
        for shift, dim in zip(shifts, dims, strict=True):
            size = int(node.sizes(0)[dim])
            start = -shift % size
            if start == 0:
                continue
            parts = []
            for first, count in ((start, size - start), (0, start)):
                sizes = node.out_sizes()
                sizes[dim] = count
                op = ir.Slice(dim=dim % node.rank(0), start=builder.dim(first))
                parts.append(builder.temp(op, [value], sizes, dtype))
            concat = ir.Concat(dim=dim % node.rank(0))
            value = builder.temp(concat, parts, node.out_sizes(), dtype)
        builder.alias(node.fx, value)

    @staticmethod
    def _arguments(node: NodeView) -> tuple[list[Any], list[int]]:
        return list(node.arg(1, "shifts")), list(node.arg(2, "dims", []))
