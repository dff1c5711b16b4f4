"""Has ExecuTorch's kernels normalise what is around 0.

They take a variance for the mean of squares less the square of the mean, in float32, which leaves
little of it where the mean is large beside it: numbers around 1000 that differ by 1 come out 40 %
off. Norms do not change with what is added to all their numbers, so kernels that are left in a
lowered program read their input less its mean. That mean need not be exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from orchestrator.frontend.passes.caller import Caller, arguments_of
from orchestrator.graph.queries import is_getitem, op_name

_ATEN = exir_ops.edge.aten
_MEAN = 1  # of a norm's results, the number of the mean


def center_norms(ep: ExportedProgram) -> bool:
    """Insert means and differences in front of norms; edits `ep`, a lowered program, in place.

    Bodies of control flow are included. Norms whose mean is read keep their input. Returns whether
    anything changed.
    """
    changed = False
    for module in ep.graph_module.modules():
        if isinstance(module, GraphModule):
            norms = [node for node in module.graph.nodes if _is_norm(node)]
            for node in norms:
                with module.graph.inserting_before(node):
                    centered = _CENTERED[op_name(node)](Caller(module.graph, node), node)
                node.replace_input_with(node.all_input_nodes[0], centered)
            if norms:
                module.recompile()
                changed = True
    return changed


def _is_norm(node: Node) -> bool:
    if not isinstance(node.target, EdgeOpOverload) or op_name(node) not in _CENTERED:
        return False
    return not any(is_getitem(user) and user.users and user.args[1] == _MEAN for user in node.users)


def _less_mean(call: Caller, x: Node, dims: list[int]) -> Node:
    return call(_ATEN.sub.Tensor, x, call(_ATEN.mean.dim, x, dims, True))


def _of_layer(call: Caller, node: Node) -> Node:
    x = node.all_input_nodes[0]
    rank = x.meta["val"].dim()
    normalized = len(arguments_of(node)["normalized_shape"])
    return _less_mean(call, x, list(range(rank - normalized, rank)))


def _of_batch(call: Caller, node: Node) -> Node:
    x = node.all_input_nodes[0]
    return _less_mean(call, x, [dim for dim in range(x.meta["val"].dim()) if dim != 1])


def _of_group(call: Caller, node: Node) -> Node:
    x, given = node.all_input_nodes[0], arguments_of(node)
    sizes = _sizes(call, x)
    length = -1
    if all(isinstance(size, int) for size in sizes):
        length = math.prod(sizes) // (sizes[0] * given["group"])
    rows = call(_ATEN.view_copy.default, x, [sizes[0], given["group"], length])
    return call(_ATEN.view_copy.default, _less_mean(call, rows, [2]), sizes)


def _sizes(call: Caller, x: Node) -> list[Any]:
    """The sizes of a tensor, numbers or nodes."""
    return [
        size if isinstance(size, int) else call(torch.ops.aten.sym_size.int, x, dim)
        for dim, size in enumerate(x.meta["val"].shape)
    ]


_CENTERED = {
    "aten.native_layer_norm.default": _of_layer,
    "aten.native_group_norm.default": _of_group,
    "aten._native_batch_norm_legit.no_stats": _of_batch,
}
