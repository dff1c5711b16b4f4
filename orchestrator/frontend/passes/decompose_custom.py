"""Writes ops of libraries with the ops that they are made of, where no backend takes them.

torch.export and ExecuTorch decompose composite ops of ATen; those that a library defines (torchao's
`choose_qparams_affine`, say) stay, and have no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from ggml_delegate.program_editor import ProgramEditor, rewrite_each

# What is known of where a node comes from.
_KEPT = ("nn_module_stack", "stack_trace")


def decompose_custom(program: ExportedProgram, wanted: Callable[[Node], bool]) -> ExportedProgram:
    """Returns a program in which wanted nodes are the ops that theirs is made of.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
        wanted: Whether to decompose a node; its op must have a composite implementation.
    """
    return rewrite_each(program, wanted, _inline)


def _inline(editor: ProgramEditor, node: Node) -> None:
    """Traces a node's op with its own fake arguments, and puts what it does in front of it."""
    sources = node.all_input_nodes
    values = [source.meta["val"] for source in sources]
    traced = _trace(node, sources, values)
    inlined: dict[Node, Node] = {}
    placeholders = (each for each in traced.graph.nodes if each.op == "placeholder")
    for placeholder, source in zip(placeholders, sources, strict=True):
        inlined[placeholder] = source
    came_from: dict[str, Any] = {key: node.meta[key] for key in _KEPT if key in node.meta}
    for each in traced.graph.nodes:
        if each.op == "call_function":
            copy = editor.graph.node_copy(each, inlined.__getitem__)
            copy.meta = {"val": each.meta["val"], **came_from}
            inlined[each] = copy
    (results,) = traced.graph.output_node().args
    if isinstance(results, Node):
        editor.replace(node, inlined[results])
        return
    assert isinstance(results, (list, tuple))
    for getitem in list(node.users):
        result = results[getitem.args[1]]  # type: ignore[index]
        assert isinstance(result, Node)
        editor.replace(getitem, inlined[result])
        editor.graph.erase_node(getitem)


def _trace(node: Node, sources: list[Node], values: list[Any]) -> GraphModule:
    op = node.target
    assert isinstance(op, torch._ops.OpOverload)

    def call(*given: Any) -> Any:
        by_node = dict(zip(sources, given, strict=True))
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), by_node.__getitem__)
        return pytree.tree_map(lambda result: result, op.decompose(*args, **kwargs))

    mode = next(value.fake_mode for value in values if isinstance(value, FakeTensor))
    with mode, torch.no_grad():
        return make_fx(call)(*values)
