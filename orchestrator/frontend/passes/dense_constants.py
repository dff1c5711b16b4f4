"""Stores constants contiguously, whatever layout the model has them in.

A model in channels-last has weights in it too, and a weight may be a view: transposed, expanded, a
part of another. Backends read constants in the order of their dims; XNNPACK refuses others. What
an op gives stays in the layout that the program declares.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor
from orchestrator.frontend.passes.producers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

aten = torch.ops.aten

_CONVOLUTIONS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_OWN = ("val", "tensor_meta", "torch_fn", "unbacked_bindings")


def dense_constants(program: ExportedProgram) -> ExportedProgram:
    """Returns a program whose constants are contiguous; `program` is left as it was.

    One tensor that goes by several names stays one. Buffers that the program changes become
    contiguous too, for what is written to them is. A constant stays as it is
    if an op passes its layout on, unless that is channels-last, which a copy can restore.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(map(_is_strided, program.graph.nodes)):
        return program
    editor = ProgramEditor(program)
    made: dict[tuple[object, ...], torch.Tensor] = {}
    for node in filter(_is_strided, list(editor.graph.nodes)):
        value = editor.constant(node)
        if value is None:
            start = editor.tensor(node)
            if start is not None:  # a buffer that the program writes to: its layout is its own
                dense = start.detach().clone(memory_format=torch.contiguous_format)
                editor.set_constant(node, dense)
            continue
        if not node.users:
            continue
        layers = {layer: None for user in node.users for layer in _layers(user)}
        heirs = [user for user in node.users if not _layers(user) and _inherits(user)]
        order = _channels_last(node.meta["val"])
        if heirs and (order is None or any(user.op == "output" for user in heirs)):
            continue
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if place not in made:
            made[place] = value.detach().clone(memory_format=torch.contiguous_format)
        editor.set_constant(node, made[place])
        for layer in layers:
            _keep_layout(editor, layer)
        for heir in heirs:
            heir.replace_input_with(node, _copy(editor, heir, node, order))
    return editor.finish()


def _is_strided(node: Node) -> bool:
    value = node.meta.get("val")
    if node.op != "placeholder" or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_contiguous()


def _layers(user: Node) -> list[Node]:
    """The convolutions that a user is, or expands a quantized weight for; they come with copies.

    Nothing may stand between a quantized weight and what expands it.
    """
    if user.target in _CONVOLUTIONS:
        return [user]
    name = str(user.target)
    if "dequantize" in name and all(each.target in _CONVOLUTIONS for each in user.users):
        return list(user.users)
    return []


def _inherits(user: Node) -> bool:
    """Whether the layout of a user's result may be that of the constant."""
    op, value = user.target, user.meta.get("val")
    if not isinstance(op, torch._ops.OpOverload) or not isinstance(value, torch.Tensor):
        return True
    is_view = any(argument.alias_info is not None for argument in op._schema.arguments)
    return is_view or not value.is_contiguous()


def _channels_last(value: torch.Tensor) -> torch.memory_format | None:
    """The memory format of an image or a volume in channels-last."""
    order = _CHANNELS_LAST.get(value.dim())
    return order if order and value.is_contiguous(memory_format=order) else None


def _keep_layout(editor: ProgramEditor, node: Node) -> None:
    """Has a convolution give what it gave: a layout that came from its weight now comes first."""
    source = node.args[0]
    declared = node.meta["val"]
    order = _channels_last(declared)
    if order is None or declared.is_contiguous() or not isinstance(source, Node):
        return
    if _channels_last(source.meta["val"]) != order:
        node.replace_input_with(source, _copy(editor, node, source, order))


def _copy(
    editor: ProgramEditor, user: Node, source: Node, order: torch.memory_format | None
) -> Node:
    with editor.graph.inserting_before(user):
        copy = editor.graph.call_function(aten.clone.default, (source,), {"memory_format": order})
    value = source.meta["val"]
    with value.fake_mode:
        copy.meta = {key: item for key, item in user.meta.items() if key not in _OWN}
        copy.meta["val"] = aten.clone.default(value, memory_format=order)
    return copy
