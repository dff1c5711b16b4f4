"""ExecuTorch's own kernels: they run whatever no delegate takes, and are not a delegate."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.tensor import dim_order_from_stride
from torch.fx import Node

NAME = "portable"

# Rewritten by ExecuTorch into its own ops after delegation, so no kernel has the edge op's name.
_REWRITTEN = {"aten::view_copy"}


def missing_kernel(node: Node) -> str | None:
    """Say which kernel a node needs that this ExecuTorch runtime lacks, or None.

    The answer is about the runtime in the installed wheel. Another runtime may link other
    kernels. Nodes that are not operators (getitem, arithmetic on sizes, control flow) need none.
    """
    target = node.target
    if not isinstance(target, EdgeOpOverload) or target._schema.name in _REWRITTEN:
        return None
    try:
        schema = target.to_out_variant()._schema
    except RuntimeError:
        return f"{target._schema.name} (no out variant)"
    if (refused := _refused(node, schema.name)) is not None:
        return f"{schema.name}.out {refused}"
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return None if name in registered_kernels() else name


def _refused(node: Node, name: str) -> str | None:
    """Say what the kernel of an op cannot do that the node asks for, or None.

    Kernels that change the rank of a tensor take its memory to be contiguous: most refuse
    another dim order when they run, `unsqueeze_copy` gives wrong numbers. `constant_pad_nd` gives
    wrong ones as well. Conversions fail on an image whose dim order ExecuTorch stores as another.
    """
    sources = [source.meta.get("val") for source in node.all_input_nodes]
    tensors = [value for value in sources if isinstance(value, torch.Tensor)]
    if name == "aten::linear" and tensors[0].dim() < 2:
        return "for a vector"
    if name == "aten::copy" and (True in node.args[2:] or node.kwargs.get("non_blocking")):
        return "with non_blocking"
    result = node.meta.get("val")
    # One pixel or channel lies alike in several orders, of which a file names one.
    order: Any = node.kwargs.get("dim_order")
    if isinstance(result, torch.Tensor) and order is not None:
        stored = dim_order_from_stride(result.stride())
        if list(order) != list(stored):
            return f"with dim order {list(order)}, as sizes {list(result.shape)} stand for another"
    for value in tensors:
        contiguous = list(dim_order_from_stride(value.stride())) == list(range(value.dim()))
        if contiguous or not isinstance(result, torch.Tensor):
            continue
        if result.dim() != value.dim() or name == "aten::constant_pad_nd":
            return "for a tensor in channels-last"
    return None


@lru_cache(maxsize=1)
def registered_kernels() -> frozenset[str]:
    """Return the names of the kernels in the installed ExecuTorch runtime ("aten::add.out")."""
    from executorch.runtime import Runtime

    return frozenset(Runtime.get().operator_registry.operator_names)
