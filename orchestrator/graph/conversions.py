"""Conversions of dtype and dim order, added to a graph of the edge dialect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from torch._dispatch.python import enable_python_dispatcher
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Graph, Node

from orchestrator.graph.queries import tensors_of

CONVERSION = "dim_order_ops._to_dim_order_copy.default"
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
    with graph.inserting_after(after):
        copy: Node = graph.create_node(
            "call_function",
            _CONVERT,
            (tensor,),
            {"dtype": dtype, "dim_order": list(dim_order)},
            name=f"{tensor.name}_{suffix}",
        )
    copy.meta = {key: item for key, item in tensor.meta.items() if key != "tensor_meta"}
    copy.meta["val"] = converted_value(tensor.meta["val"], dtype=dtype, dim_order=dim_order)
    return copy


def converted_value(
    value: torch.Tensor, *, dtype: torch.dtype, dim_order: Sequence[int]
) -> torch.Tensor:
    """Return what a conversion makes of a fake tensor."""
    with faked(value):
        result: torch.Tensor = _CONVERT(value, dtype=dtype, dim_order=list(dim_order))
    return result


def read_instead(
    readers: Iterable[Node], tensor: Node, copy: Node, signature: ExportGraphSignature | None
) -> None:
    """Have nodes read a copy where they read a tensor.

    signature: of the program, whose outputs are named; None for a body of control flow.
    """
    for reader in readers:
        reader.replace_input_with(tensor, copy)
        if reader.op == "output" and signature is not None:
            signature.replace_all_uses(tensor.name, copy.name)


@contextlib.contextmanager
def faked(value: Any) -> Iterator[None]:
    """Compute with fake tensors like a value's, which must not specialize dynamic sizes.

    As in ExecuTorch's passes, fake versions in Python come first: of channels-last images, kernels
    of PyTorch ask what a batch is, and it is that from then on, in the whole program.

    value: a fake tensor, or several.
    """
    mode = tensors_of(value)[0].fake_mode  # type: ignore[attr-defined]
    env = mode.shape_env
    with (
        mode,
        enable_python_dispatcher(),
        contextlib.nullcontext() if env is None else env.suppress_guards(),
    ):
        yield
