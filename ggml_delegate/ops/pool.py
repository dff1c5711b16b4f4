"""Average and maximum pooling over two dimensions."""

from __future__ import annotations

from typing import Any

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ops.conv import MAX_ATTRIBUTE
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register


def _pair(value: int | list[int]) -> list[int]:
    """(h, w) of an argument given per dimension, or once for both."""
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _windows(node: NodeView, dilation: int | list[int]) -> dict[str, int]:
    """Kernel, stride, dilation and padding by IR name."""
    kernel = _pair(node.arg(1, "kernel_size"))
    stride = node.arg(2, "stride", None)
    pairs = {
        "kernel": kernel,
        "stride": kernel if stride in (None, []) else _pair(stride),
        "dilation": _pair(dilation),
        "pad": _pair(node.arg(3, "padding", 0)),
    }
    return {
        f"{name}{side}": pair[i] for name, pair in pairs.items() for i, side in ((0, "H"), (1, "W"))
    }


def _check_windows(node: NodeView, windows: dict[str, int], ceil_mode: bool) -> Reason | None:
    if ceil_mode and _open_windows_may_start_beyond(node, windows):
        return Reason(
            "dynamic",
            "ceil_mode over a dynamic size, where a last window may start beyond the elements",
        )
    if node.rank(0) not in (3, 4):
        return Reason("unbatched", f"pooling of rank {node.rank(0)}, ggml has 3 and 4")
    if any(not 0 <= number <= MAX_ATTRIBUTE for number in windows.values()):
        return Reason(
            "unsupported",
            f"a kernel size, stride, padding or dilation outside of 0 to {MAX_ATTRIBUTE}",
        )
    return None


def _open_windows_may_start_beyond(node: NodeView, windows: dict[str, int]) -> bool:
    """Whether PyTorch may leave out a last window that starts in the padding, for some sizes only.

    The size that it declares goes by the example: see pooling_output_shape in its Pool.h.
    """
    for side, size in zip("HW", node.sizes(0)[-2:], strict=False):
        names = ("kernel", "stride", "dilation", "pad")
        kernel, stride, dilation, pad = (windows[name + side] for name in names)
        if not isinstance(size, int) and stride + pad - 1 > dilation * (kernel - 1):
            return True
    return False


@register
class AvgPool2dRule(OpRule):
    """aten.avg_pool2d."""

    targets = ("aten.avg_pool2d.default",)

    def check(self, node: NodeView) -> Reason | None:
        divisor = node.arg(6, "divisor_override", None)
        if divisor is not None and not 0 < divisor <= MAX_ATTRIBUTE:
            return Reason("unsupported", f"divisor_override {divisor}")
        return _check_windows(node, _windows(node, 1), bool(node.arg(4, "ceil_mode", False)))

    def lower(self, node: NodeView, builder: Builder) -> None:
        op = ir.Pool2d(
            kind=ir.PoolKind.Avg,
            countIncludePad=bool(node.arg(5, "count_include_pad", True)),
            divisor=node.arg(6, "divisor_override", None) or 0,
            **_windows(node, 1),
        )
        builder.emit(op, [builder.value(node.node(0))], node.fx)


class _ValuesRule(OpRule):
    """An op with results (values, indices), of which ggml computes the values."""

    outputs_via_getitem = True

    def op(self, node: NodeView) -> Any:
        """The IR op that computes the values."""
        raise NotImplementedError

    def lower(self, node: NodeView, builder: Builder) -> None:
        inputs = [builder.value(node.node(0))]
        result = builder.temp(self.op(node), inputs, node.out_sizes(0), node.out_dtype(0))
        builder.define(node.fx, {0: result})


@register
class MaxPool2dRule(_ValuesRule):
    """aten.max_pool2d_with_indices."""

    targets = ("aten.max_pool2d_with_indices.default",)

    def check(self, node: NodeView) -> Reason | None:
        ceil_mode = bool(node.arg(5, "ceil_mode", False))
        return _check_windows(node, self._attributes(node), ceil_mode)

    def op(self, node: NodeView) -> Any:
        return ir.Pool2d(kind=ir.PoolKind.Max, **self._attributes(node))

    def _attributes(self, node: NodeView) -> dict[str, int]:
        return _windows(node, node.arg(4, "dilation", 1))


def _check_adaptive(node: NodeView) -> Reason | None:
    if node.rank(0) not in (3, 4):
        return Reason("unbatched", f"pooling of rank {node.rank(0)}, ggml has 3 and 4")
    return None


@register
class AdaptiveAvgPool2dRule(OpRule):
    """aten.adaptive_avg_pool2d, in both of its names."""

    targets = ("aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool2d.default")

    def check(self, node: NodeView) -> Reason | None:
        return _check_adaptive(node)

    def lower(self, node: NodeView, builder: Builder) -> None:
        op = ir.Pool2d(kind=ir.PoolKind.Avg, adaptive=True)
        builder.emit(op, [builder.value(node.node(0))], node.fx)


@register
class AdaptiveMaxPool2dRule(_ValuesRule):
    """aten.adaptive_max_pool2d."""

    targets = ("aten.adaptive_max_pool2d.default",)

    def check(self, node: NodeView) -> Reason | None:
        return _check_adaptive(node)

    def op(self, node: NodeView) -> Any:
        return ir.Pool2d(kind=ir.PoolKind.Max, adaptive=True)
