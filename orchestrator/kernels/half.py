"""Has ExecuTorch's kernels compute in float32 what is of half precision.

Within an op they round to half precision, where PyTorch does not: products add up in it, and are
off by a tenth and more. Many have no half types at all. What a lowered program leaves to them reads
float32 copies, and its results are rounded as the model says.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from ggml_delegate.aten_ops import Trait, traits
from ggml_delegate.registry import HALF_DTYPES
from orchestrator.graph.conversions import insert_conversion, read_instead
from orchestrator.graph.queries import dtype_name, is_getitem, op_name

_NO_ARITHMETIC = Trait.VIEW | Trait.MOVES | Trait.PICKS


def widen_half_kernels(ep: ExportedProgram) -> bool:
    """Insert conversions around what no delegate has; edits `ep`, a lowered program, in place.

    Bodies of control flow are included. Ops that are told a half type for their result keep it.
    Returns whether anything changed.
    """
    changed = False
    for module in ep.graph_module.modules():
        if not isinstance(module, GraphModule):
            continue
        editor = _Editor(module.graph, ep.graph_signature if module is ep.graph_module else None)
        for node in list(module.graph.nodes):
            if node.op == "call_function" and _is_kernel(node):
                editor.widen(node)
        if editor.changed:
            module.recompile()
            changed = True
    return changed


def _is_kernel(node: Node) -> bool:
    """Whether a kernel computes numbers in a node."""
    if not isinstance(node.target, EdgeOpOverload):
        return False
    name = op_name(node)
    return name.startswith("aten.") and not traits(name) & _NO_ARITHMETIC


class _Editor:
    """signature: of the program that the graph is of, if it is no body of control flow."""

    def __init__(self, graph: Graph, signature: ExportGraphSignature | None) -> None:
        self._graph = graph
        self._signature = signature
        self._wide: dict[Node, Node] = {}
        self.changed = False

    def widen(self, node: Node) -> None:
        """Have a node read, and make, float32."""
        if any(
            argument in HALF_DTYPES for argument in pytree.tree_leaves((node.args, node.kwargs))
        ):
            return
        sources = [source for source in node.all_input_nodes if _is_half(source.meta.get("val"))]
        if not sources:
            return
        if traits(op_name(node)) & Trait.ROUNDS_NUMBERS:
            self._round_numbers(node, sources[0].meta["val"].dtype)
        if not any(map(_is_half, pytree.tree_leaves(node.meta["val"]))):
            return  # comparisons are exact
        for source in sources:
            if source not in self._wide:
                self._wide[source] = self._convert(source, torch.float32)
            node.replace_input_with(source, self._wide[source])
        self.changed = True
        before = node.meta["val"]
        after = _computed(node)
        node.meta["val"] = after
        node.meta.pop("tensor_meta", None)
        if isinstance(before, torch.Tensor):
            self._narrow(node, before, after)
            return
        for user in list(node.users):
            if is_getitem(user):
                index = user.args[1]
                user.meta["val"] = after[index]
                user.meta.pop("tensor_meta", None)
                self._narrow(user, before[index], after[index])

    def _round_numbers(self, node: Node, dtype: torch.dtype) -> None:
        call = (node.args, node.kwargs)

        def rounded(number: float) -> float:
            value = torch.tensor(float(number)).to(dtype).item()
            return number if value == number else value

        node.args, node.kwargs = pytree.tree_map_only((int, float), rounded, call)
        self.changed = True

    def _narrow(self, tensor: Node, before: torch.Tensor, after: torch.Tensor) -> None:
        """Have all readers read a result in the dtype that it had."""
        if before.dtype == after.dtype:
            return
        readers = list(tensor.users)
        narrow = self._convert(tensor, before.dtype)
        narrow.meta["val"] = before
        read_instead(readers, tensor, narrow, self._signature)

    def _convert(self, tensor: Node, dtype: torch.dtype) -> Node:
        suffix, order = dtype_name(dtype), tensor.meta["val"].dim_order()
        return insert_conversion(self._graph, tensor, suffix, dtype=dtype, dim_order=order)


def _is_half(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.dtype in HALF_DTYPES


def _computed(node: Node) -> Any:
    """What a node makes of the values that it reads."""
    mode = node.all_input_nodes[0].meta["val"].fake_mode
    call = (node.args, node.kwargs)
    args, kwargs = pytree.tree_map_only(Node, lambda each: each.meta["val"], call)
    target: Any = node.target
    with mode:
        return target(*args, **kwargs)
