"""Ops that XNNPACK has no operator for, and takes written in others that it has.

Preserved for another backend that has the op, it would be lost to XNNPACK, whose calls would
end there. And ExecuTorch's decompositions keep numbers as int64 tensors, which kernels convert in
every run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from executorch.backends.transforms.utils import create_constant_placeholder
from executorch.backends.xnnpack._passes.xnnpack_pass import XNNPACKPass
from executorch.exir.dialects._ops import ops as exir_ops
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from orchestrator.backends.xnnpack.group import MAX_RANK
from orchestrator.graph.queries import aten_op, expected_shape, op_name
from orchestrator.versions import is_known_executorch

_EDGE = exir_ops.edge.aten

Write = Callable[..., Node]
"""Adds an op of the edge dialect to a graph; its result is like the op's that it stands for."""


def _silu(x: Node, write: Write, constant: Callable[[float], Node]) -> Node:
    return write(_EDGE.mul.Tensor, x, write(_EDGE.sigmoid.default, x))


def _hardsigmoid(x: Node, write: Write, constant: Callable[[float], Node]) -> Node:
    shifted = write(_EDGE.add.Tensor, write(_EDGE.mul.Tensor, x, constant(1 / 6)), constant(0.5))
    return write(_EDGE.hardtanh.default, shifted, 0.0, 1.0)


@dataclass(frozen=True)
class _Expansion:
    """How an op is written, and how many operators of XNNPACK's that makes."""

    write: Callable[..., Node]
    operators: int


EXPANDED: Mapping[torch._ops.OpOverload, _Expansion] = {
    torch.ops.aten.silu.default: _Expansion(_silu, 2),
    torch.ops.aten.hardsigmoid.default: _Expansion(_hardsigmoid, 2),  # the clamp is fused
}


@functools.cache
def expanded_ops() -> Mapping[str, int]:
    """Return how many operators an op makes, by the op's name."""
    return {str(op): expansion.operators for op, expansion in EXPANDED.items()}


def is_expandable(node: Node) -> bool:
    """Whether XNNPACK takes a node written in other ops, as precisely as they are."""
    if not is_known_executorch() or op_name(node) not in expanded_ops():
        return False
    value = node.meta["val"]
    return value.dtype == torch.float32 and 0 < len(expected_shape(value)) <= MAX_RANK


class ExpandOps(XNNPACKPass):  # type: ignore[misc]  # executorch is untyped
    """Writes ops of a delegate's program in those that XNNPACK has operators for."""

    def call(self, graph_module: GraphModule) -> PassResult:
        graph = graph_module.graph
        found = [node for node in graph.nodes if is_expanded(node.target)]
        for node in found:
            (x,) = node.all_input_nodes
            result = EXPANDED[aten_op(node)].write(
                x,
                functools.partial(_write, graph_module, node),
                functools.partial(self._constant, graph_module),
            )
            node.replace_all_uses_with(result)
            graph.erase_node(node)
        graph_module.recompile()
        return PassResult(graph_module, bool(found))

    def _constant(self, graph_module: GraphModule, number: float) -> Node:
        graph = graph_module.graph
        with graph.inserting_before(next(iter(graph.nodes))):
            made: Node = create_constant_placeholder(
                self.exported_program,
                graph,
                f"constant_{number:.3f}".replace(".", "_"),
                InputKind.CONSTANT_TENSOR,
                torch.tensor([number]),
            )
        return made


def _write(graph_module: GraphModule, node: Node, op: Any, *args: Any) -> Node:
    with graph_module.graph.inserting_before(node):
        made = graph_module.graph.call_function(op, args)
    made.meta = dict(node.meta)
    return made


def is_expanded(op: object) -> bool:
    """Whether an op, of ATen or of the edge dialect, is taken written in others."""
    return getattr(op, "_op", op) in EXPANDED
