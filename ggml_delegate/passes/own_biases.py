"""Gives every layer of quantized activations a bias of its own.

Such a bias is stored in integers, in steps of its layer's input and weight. XNNPACK stores what
several layers share once, in the steps of the first: the others, quantized or not, fail to load, or
are wrong.
"""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.passes.program_editor import ProgramEditor
from ggml_delegate.quantized import is_dequantize

# Of convolutions and linear layers alike: (input, weight, bias).
_BIAS = 2


def own_biases(program: ExportedProgram) -> ExportedProgram:
    """Returns a program whose quantized layers share no bias; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(_sharers(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in list(editor.graph.nodes):
        value = editor.constant(node)
        target = editor.target_of(node)
        if value is None or target is None:
            continue
        for layer in _sharers(node):
            layer.update_arg(_BIAS, editor.add_parameter(target, value.detach().clone()))
        editor.remove_if_unused([node])
    return editor.finish()


def _sharers(bias: Node) -> list[Node]:
    """The quantized layers that share a bias with others."""
    if bias.op != "placeholder" or len(bias.users) < 2:
        return []
    return [user for user in bias.users if _is_quantized_layer(user, bias)]


def _is_quantized_layer(node: Node, bias: Node) -> bool:
    if len(node.args) <= _BIAS or node.args[_BIAS] is not bias:
        return False
    return all(isinstance(each, Node) and is_dequantize(each) for each in node.args[:_BIAS])
