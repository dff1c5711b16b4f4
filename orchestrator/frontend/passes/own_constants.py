"""Gives some readers of a constant one of their own.

- Layers of quantized activations: their bias is stored in integers, in steps of the layer's input
  and weight. XNNPACK stores what several layers share once, in the steps of the first: the others,
  quantized or not, fail to load, or are wrong.
- Ops that read it in a list (joins, recurrent layers): ExecuTorch copies a constant that several
  delegates read, but not where it is in a list.

Equal constants are stored once in a program's file.
"""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor
from orchestrator.graph.quantized import is_dequantize

# Of convolutions and linear layers alike: (input, weight, bias).
_BIAS = 2


def own_constants(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which these readers share no constant; `program` is left as it was.

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
        for reader in _sharers(node):
            own = editor.add_parameter(target, value.detach().clone())
            reader.replace_input_with(node, own)
        editor.remove_if_unused([node])
    return editor.finish()


def _sharers(constant: Node) -> list[Node]:
    """The readers that are to have a constant of their own."""
    if constant.op != "placeholder" or len(constant.users) < 2:
        return []
    return [
        user
        for user in constant.users
        if user.op == "call_function"
        and (_is_quantized_layer(user, constant) or _reads_in_a_list(user, constant))
    ]


def _is_quantized_layer(node: Node, bias: Node) -> bool:
    if len(node.args) <= _BIAS or node.args[_BIAS] is not bias:
        return False
    return all(isinstance(each, Node) and is_dequantize(each) for each in node.args[:_BIAS])


def _reads_in_a_list(node: Node, constant: Node) -> bool:
    return any(isinstance(each, (list, tuple)) and constant in each for each in node.args)
