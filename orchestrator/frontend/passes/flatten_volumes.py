"""Writes convolutions and pools of volumes as those of images, for which there are kernels.

A convolution of a volume is one of images, over as many times the channels as the kernel is deep:
each image holds, by channel, the slices that the kernel reads together. A pool is one over height
and width, then one over depth. Local response norm is written with such a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, rewrite_each
from orchestrator.frontend.passes.caller import Caller, arguments_of

aten = torch.ops.aten

_POOLS = {
    aten.avg_pool3d.default: aten.avg_pool2d.default,
    aten.max_pool3d.default: aten.max_pool2d.default,
}


def flatten_volumes(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without average and max pools, and convolutions, of volumes.

    What has a dynamic depth, or a divisor of its own, and transposed convolutions stay.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    return rewrite_each(program, _is_fit, _rewrite)


def _is_fit(node: Node) -> bool:
    if node.target not in {*_POOLS, aten.conv3d.default}:
        return False
    source = node.args[0]
    assert isinstance(source, Node)
    shape = source.meta["val"].shape
    return (
        len(shape) == 5
        and isinstance(shape[2], int)
        and arguments_of(node).get("divisor_override") is None
    )


def _rewrite(editor: ProgramEditor, node: Node) -> None:
    rewrite = _pooled if node.target in _POOLS else _convolved
    editor.replace(node, rewrite(Caller(editor.graph, node), node, arguments_of(node)))


def _three(values: Sequence[int], otherwise: Sequence[int] = ()) -> list[int]:
    """One number per dim; torch takes one for all, and none for the kernel's size."""
    found = list(values) or list(otherwise)
    return found * 3 if len(found) == 1 else found


def _size(call: Caller, node: Node, dim: int) -> Any:
    size = node.meta["val"].shape[dim]
    return size if isinstance(size, int) else call(aten.sym_size.int, node, dim)


def _pooled(call: Caller, node: Node, arguments: dict[str, Any]) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    pool = _POOLS[node.target]  # type: ignore[index]
    kernel = _three(arguments["kernel_size"])
    windows = [kernel, _three(arguments["stride"], kernel), _three(arguments["padding"])]
    if "dilation" in arguments:
        windows.append(_three(arguments["dilation"]))
    others = [arguments[name] for name in ("ceil_mode", "count_include_pad") if name in arguments]
    images = call(aten.reshape.default, source, [-1, *(_size(call, source, d) for d in (2, 3, 4))])
    images = call(pool, images, *(window[1:] for window in windows), *others)
    height, width = _size(call, images, 2), _size(call, images, 3)
    neutral = (1, 1, 0, 1)  # kernel, stride, padding, dilation of a dim that stays
    columns = call(aten.unsqueeze.default, call(aten.flatten.using_ints, images, 2, 3), 1)
    along = [[window[0], none] for window, none in zip(windows, neutral, strict=False)]
    columns = call(pool, columns, *along, *others)
    sizes = [_size(call, source, 0), _size(call, source, 1), _size(call, columns, 2)]
    return call(aten.reshape.default, columns, [*sizes, height, width])


def _convolved(call: Caller, node: Node, arguments: dict[str, Any]) -> Node:
    source, weight = arguments["input"], arguments["weight"]
    stride, padding = _three(arguments["stride"]), _three(arguments["padding"])
    dilation = _three(arguments["dilation"])
    deep = weight.meta["val"].shape[2]
    count = node.meta["val"].shape[2]
    if padding[0]:
        around = [0, 0, 0, 0, padding[0], padding[0]]
        source = call(aten.constant_pad_nd.default, source, around)
    slices = []
    for place in range(deep):
        start = place * dilation[0]
        stop = start + (count - 1) * stride[0] + 1
        slices.append(call(aten.slice.Tensor, source, 2, start, stop, stride[0]))
    together = call(aten.stack.default, slices, 2)
    together = call(aten.permute.default, together, [0, 3, 1, 2, 4, 5])
    height, width = _size(call, source, 3), _size(call, source, 4)
    channels = source.meta["val"].shape[1] * deep
    images = call(aten.reshape.default, together, [-1, channels, height, width])
    flat = call(aten.flatten.using_ints, weight, 1, 2)
    images = call(
        aten.conv2d.default,
        images,
        flat,
        arguments["bias"],
        stride[1:],
        padding[1:],
        dilation[1:],
        arguments["groups"],
    )
    sizes = [images.meta["val"].shape[1], _size(call, images, 2), _size(call, images, 3)]
    volumes = call(aten.reshape.default, images, [-1, count, *sizes])
    return call(aten.permute.default, volumes, [0, 2, 1, 3, 4])
