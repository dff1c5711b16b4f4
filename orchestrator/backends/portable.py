"""ExecuTorch's own kernels: they run whatever no delegate takes, and are not a delegate."""

from __future__ import annotations

from functools import lru_cache

import executorch.exir.passes.quant_fusion_pass
import executorch.kernels.quantized  # noqa: F401  (out variants of quantized ops)
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch.fx import Node

from orchestrator.backends.base import Estimates, Rates
from orchestrator.options import KERNELS

NAME = KERNELS
ESTIMATES = Estimates(
    {
        "product": Rates(1.6, 4.0, 250.0, 0.6),
        "int8 product": Rates(1.6, 4.0, 250.0, 0.6),
        "depthwise": Rates(0.6, 4.0, 250.0, 0.6),
        "other": Rates(1.0, 2.0, 200.0, 0.6),
    },
    call_ns=0.0,
    convert_ns_per_byte=0.0,
    parallel=False,
    fuses=False,
)

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
    """Say what the kernel of an op cannot do that the node asks for, or None."""
    if name == "aten::linear" and node.all_input_nodes[0].meta["val"].dim() < 2:
        return "for a vector"
    if name == "aten::convolution" and node.meta["val"].dim() > 4:
        return "of volumes"
    if name == "aten::cumsum" and node.meta["val"].dim() == 0:
        return "of a number"
    if name == "aten::copy" and (True in node.args[2:] or node.kwargs.get("non_blocking")):
        return "with non_blocking"
    return None


@lru_cache(maxsize=1)
def registered_kernels() -> frozenset[str]:
    """Return the names of the kernels in the installed ExecuTorch runtime ("aten::add.out")."""
    from executorch.runtime import Runtime

    return frozenset(Runtime.get().operator_registry.operator_names)
