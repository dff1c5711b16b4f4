"""ExecuTorch's own kernels: they run whatever no delegate takes, and are not a delegate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    half=1.5,
)

# Rewritten by ExecuTorch into its own ops after delegation, so no kernel has the edge op's name.
_REWRITTEN = {"aten::view_copy"}


@dataclass(frozen=True)
class Quirk:
    """What a kernel cannot do that a node may ask of it.

    applies: whether a node asks for it. reason: what the kernel is missing for, as in "no kernel
    for a vector". version: of ExecuTorch, in which it was seen; tests/backends/
    test_kernel_quirks.py fails where a later one has mended it.
    """

    kernel: str
    reason: str
    applies: Callable[[Node], bool]
    version: str = "1.5.1"


def _is_non_blocking(node: Node) -> bool:
    return True in node.args[2:] or bool(node.kwargs.get("non_blocking"))


QUIRKS: tuple[Quirk, ...] = (
    Quirk("aten::linear", "for a vector", lambda node: _rank(node.all_input_nodes[0]) < 2),
    Quirk("aten::convolution", "of volumes", lambda node: _rank(node) > 4),
    Quirk("aten::cumsum", "of a number", lambda node: _rank(node) == 0),
    Quirk("aten::copy", "with non_blocking", _is_non_blocking),
)


def _rank(node: Node) -> int:
    return int(node.meta["val"].dim())


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
    except (RuntimeError, AssertionError):  # the latter of a schema that ExecuTorch cannot read
        return f"{target._schema.name} (no out variant)"
    for quirk in QUIRKS:
        if quirk.kernel == schema.name and quirk.applies(node):
            return f"{schema.name}.out {quirk.reason}"
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return None if name in registered_kernels() else name


@lru_cache(maxsize=1)
def registered_kernels() -> frozenset[str]:
    """Return the names of the kernels in the installed ExecuTorch runtime ("aten::add.out")."""
    from executorch.runtime import Runtime

    return frozenset(Runtime.get().operator_registry.operator_names)
