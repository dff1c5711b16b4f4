"""ExecuTorch's own kernels: they run whatever no delegate takes, and are not a delegate."""

from __future__ import annotations

from functools import lru_cache

from executorch.exir.dialects.edge._ops import EdgeOpOverload
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
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return None if name in registered_kernels() else name


@lru_cache(maxsize=1)
def registered_kernels() -> frozenset[str]:
    """Return the names of the kernels in the installed ExecuTorch runtime ("aten::add.out")."""
    from executorch.runtime import Runtime

    return frozenset(Runtime.get().operator_registry.operator_names)
