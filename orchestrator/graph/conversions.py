"""Conversions of dtype and dim order, added to a graph of the edge dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from torch.fx import Graph, Node

_CONVERT = exir_ops.edge.dim_order_ops._to_dim_order_copy.default


def insert_conversion(
    graph: Graph, tensor: Node, suffix: str, *, dtype: torch.dtype, dim_order: Sequence[int]
) -> Node:
    """Add a copy of a tensor behind it, behind all placeholders if it is one; nothing reads it yet.

    suffix: of the copy's name, behind the tensor's.
    """
    after = tensor
    if tensor.op == "placeholder":
        after = [node for node in graph.nodes if node.op == "placeholder"][-1]
    value = tensor.meta["val"]
    arguments: dict[str, Any] = {"dtype": dtype, "dim_order": list(dim_order)}
    with graph.inserting_after(after):
        copy: Node = graph.create_node(
            "call_function", _CONVERT, (tensor,), arguments, name=f"{tensor.name}_{suffix}"
        )
    copy.meta = {key: item for key, item in tensor.meta.items() if key != "tensor_meta"}
    with value.fake_mode:
        copy.meta["val"] = _CONVERT(value, **arguments)
    return copy
