"""Small questions about exported programs that several rooms ask."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.sym_util import eval_upper_bound
from executorch.exir.tensor import dim_order_from_stride
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.traceback import NodeSource
from torch.utils.weak import WeakTensorKeyDictionary

from ggml_delegate.aten_ops import Trait, traits
from ggml_delegate.node_view import op_name as op_name
from ggml_delegate.recurrent_ops import STANDS_FOR

# Of tensors with dynamic sizes, whose strides take a millisecond to be sorted.
_DIM_ORDERS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def compute_nodes(ep: ExportedProgram) -> Iterator[Node]:
    """Yield the `call_function` nodes of the top-level graph, in order."""
    return (node for node in ep.graph.nodes if node.op == "call_function")


def constant_nodes(ep: ExportedProgram) -> set[Node]:
    """Return the placeholders that stand for parameters, buffers and lifted constants."""
    signature = ep.graph_signature
    names = {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }
    return {node for node in ep.graph.nodes if node.op == "placeholder" and node.name in names}


def mutated_buffers(ep: ExportedProgram) -> set[Node]:
    """Return the placeholders of buffers that the program changes when it runs."""
    signature = ep.graph_signature
    targets = set(signature.buffers_to_mutate.values())
    names = {name for name, target in signature.inputs_to_buffers.items() if target in targets}
    return {node for node in ep.graph.nodes if node.op == "placeholder" and node.name in names}


def is_dim_order_op(node: Node) -> bool:
    """Whether a node calls an op of ExecuTorch's whose purpose is a dim order."""
    target = node.target
    return isinstance(target, EdgeOpOverload) and target._op.namespace == "dim_order_ops"


def is_getitem(node: Node) -> bool:
    """Whether a node takes one value out of a node that has several."""
    return node.op == "call_function" and node.target is operator.getitem


def module_path(node: Node) -> str:
    """Return the path of the user's module that a node comes from, "" for the root."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    return str(list(stack.values())[-1][0])


def aten_op(node: Node) -> torch._ops.OpOverload:
    """Return the op that a node calls, in either dialect, or aten's if it stands for that."""
    target: Any = node.target
    op = target._op if isinstance(target, EdgeOpOverload) else target
    assert isinstance(op, torch._ops.OpOverload), op_name(node)
    return STANDS_FOR.get(op, op)


def is_custom_composite(node: Node) -> bool:
    """Whether a node calls a library's op that is made of others, which nothing decomposes unasked.

    Those of ATen, torch.export and ExecuTorch decompose unless they are kept.
    """
    target = node.target
    if not isinstance(target, EdgeOpOverload | torch._ops.OpOverload):
        return False
    op = aten_op(node)
    return op.namespace not in ("aten", "prims", "prim") and bool(op._can_decompose())


def origin(node: Node) -> str:
    """Return the name that a node, or the one that it was made from, had in the model's export.

    Passes and decompositions make nodes anew, and note what of.
    """
    source = _first_source(node)
    return node.name if source is None else str(source.name)


def origin_op(node: Node) -> str:
    """Return the op of the node of the model's export that a node was made from.

    As `op_name` writes it; "" for a node that was made from none.
    """
    source = _first_source(node)
    return "" if source is None else str(source.target)


def _first_source(node: Node) -> NodeSource | None:
    sources = node.meta.get("from_node")
    if not sources:
        return None
    source: NodeSource = sources[-1]
    while source.from_node:
        source = source.from_node[-1]
    return source


def dim_order(value: torch.Tensor) -> tuple[int, ...]:
    """Return the dim order of a node's value, which does not change once it is in its `meta`."""
    if value not in _DIM_ORDERS:
        _DIM_ORDERS[value] = tuple(value.dim_order())
    order: tuple[int, ...] = _DIM_ORDERS[value]
    return order


def is_view(node: Node) -> bool:
    """Whether a node computes and moves nothing: a view, or a copy in the same dim order."""
    target = node.target
    if not isinstance(target, EdgeOpOverload) or Trait.VIEW not in traits(op_name(node)):
        return False
    source = node.all_input_nodes[0].meta.get("val")
    result = node.meta.get("val")
    if not isinstance(source, torch.Tensor) or not isinstance(result, torch.Tensor):
        return False
    return source.dim() != result.dim() or dim_order(source) == dim_order(result)


def has_default_dim_order(node: Node) -> bool:
    """Whether all tensors that a node reads and makes are contiguous."""
    return all(
        dim_order(value) == tuple(range(value.dim()))
        for source in (node, *node.all_input_nodes)
        for value in tensor_results(source)
    )


def is_stored_as_asked(node: Node) -> bool:
    """Whether a node that asks for a dim order gets it, or asks for none.

    One pixel or channel lies alike in several orders, of which a file names one.
    """
    asked: Any = node.kwargs.get("dim_order")
    value = node.meta.get("val")
    if asked is None or not isinstance(value, torch.Tensor):
        return True
    return list(asked) == list(dim_order_from_stride(value.stride()))


def tensor_results(node: Node) -> list[torch.Tensor]:
    """Return the tensors that a node stands for: one, or those of an op with several results."""
    return tensors_of(node.meta.get("val"))


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors in what an op computes: one value or several."""
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, torch.Tensor)]


def expected_shape(value: torch.Tensor) -> tuple[int, ...]:
    """Return a tensor's sizes; a dynamic one counts as in the example inputs, else as its bound."""
    return tuple(_expected(size) for size in value.shape)


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


class ImpossibleSizesError(ValueError):
    """Sizes that a model cannot run with, though each is within its range."""


@contextlib.contextmanager
def sizes_expected_at(values: Mapping[Any, int]) -> Iterator[None]:
    """Inside, dynamic sizes count as they are where symbols (of sympy) have these values.

    Asking for one raises an ImpossibleSizesError where there is none.
    """
    previous = _sizes_at.get()
    _sizes_at.set(values)
    try:
        yield
    finally:
        _sizes_at.set(previous)


_sizes_at: ContextVar[Mapping[Any, int] | None] = ContextVar("sizes_at", default=None)


def _expected(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    values = _sizes_at.get()
    if values is not None:
        try:
            at = size.node.expr.subs(dict(values))
        except ZeroDivisionError as error:
            raise ImpossibleSizesError(f"no {size} at {dict(values)}") from error
        if at.is_number:
            if at < 0:
                raise ImpossibleSizesError(f"{size} is {at} at {dict(values)}")
            return int(at)
    hint = size.node.hint
    return int(hint if hint is not None else eval_upper_bound(size))


def is_one(size: int | torch.SymInt) -> bool:
    """Whether a size is 1 whatever the inputs are."""
    return isinstance(size, int) and size == 1


def nbytes(node: Node) -> int:
    """Return the size of a node's value, 0 unless it is one tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return 0
    return math.prod(expected_shape(value)) * value.element_size()
