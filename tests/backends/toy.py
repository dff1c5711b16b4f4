"""A backend as a third party would add it: one module, one class, nothing elsewhere.

It takes additions and products of contiguous tensors of float32, which XNNPACK's delegate computes
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import (
    Backend,
    Candidate,
    Estimates,
    PrivateMemory,
    Rates,
    Rejection,
    Support,
)
from orchestrator.graph.queries import compute_nodes, op_name, tensor_results

OPS = ("aten.add.Tensor", "aten.mul.Tensor")
MOST_NODES = 3


class Toy(Backend):
    """Adds and multiplies, at most three times in a call, faster than anybody."""

    name = "toy"
    backend_id = XnnpackBackend.__name__
    estimates = Estimates(
        dict.fromkeys(
            ("product", "int8 product", "depthwise", "other"), Rates(900.0, 900.0, 1.0, 0.1)
        ),
        call_ns=10.0,
    )
    private_memory = PrivateMemory(per_weight_byte=3.0)
    remedies: ClassVar[Mapping[str, str]] = {"op": "write it with sums and products"}

    def propose(self, ep: ExportedProgram) -> Support:
        candidates, rejections = [], []
        for node in compute_nodes(ep):
            if op_name(node) not in OPS:
                rejections.append(Rejection(node, f"toy has no {op_name(node)}", "op"))
            elif any(value.dtype != torch.float32 for value in tensor_results(node)):
                rejections.append(Rejection(node, "toy computes in float32 only", "dtype"))
            else:
                candidates.append(Candidate((node,)))
        return Support(candidates, rejections)

    def check_segment(self, nodes: Sequence[Node]) -> str | None:
        if len(nodes) > MOST_NODES:
            return f"toy takes {MOST_NODES} ops at once, not {len(nodes)}"
        return None
