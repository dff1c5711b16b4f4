"""Backends beside ggml and XNNPACK, whose delegates take contiguous tensors only."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.lowered_backend_module import get_lowered_submodules
from torch.export import ExportedProgram

from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.base import Estimates, Rates
from orchestrator.backends.xnnpack import XnnpackDelegate
from orchestrator.graph.queries import dim_order, tensors_of
from orchestrator.planner import Layout

STRANGER = "stranger"
_MARK = "takes contiguous tensors only"


class Stranger(XnnpackDelegate):
    """XNNPACK's ops and delegate, for contiguous tensors, and cheap enough to be chosen often."""

    name = STRANGER
    converts_dim_orders = False
    is_proven = False
    estimates = Estimates(
        {kind: Rates(100.0, 20.0, 100.0, 0.3) for kind in XnnpackDelegate.estimates.rates},
        call_ns=200.0,
    )

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return (Layout.CONTIGUOUS,)

    def compile_specs(self) -> list[CompileSpec]:
        return [CompileSpec(_MARK, b"")]


@functools.cache
def backends_with(third: str) -> tuple[Backend, ...]:
    """ggml, XNNPACK, and a third one: "stranger", a registered name, or "" for none."""
    others: Sequence[str | Backend] = () if not third else (third,)
    if third == STRANGER:
        others = (Stranger(),)
    return resolve_backends((*others, "ggml", "xnnpack"))


def check_strangers(programs: Mapping[str, ExportedProgram]) -> int:
    """Returns how many calls of the stranger there are.

    Raises:
        AssertionError: one gets or gives a tensor that is not contiguous.
    """
    count = 0
    for method, program in programs.items():
        for name, module, _ in get_lowered_submodules(program.graph_module):
            if not any(spec.key == _MARK for spec in module.compile_specs):
                continue
            count += 1
            inside = module.original_module.graph
            output = inside.output_node()
            for node in (*inside.find_nodes(op="placeholder"), *output.all_input_nodes):
                for tensor in tensors_of(node.meta.get("val")):
                    order = dim_order(tensor)
                    assert order == tuple(range(len(order))), (
                        f"{name} of {method}: the stranger gets or gives {node.name} in the dim "
                        f"order {order}"
                    )
    return count
