"""ggml, through this project's delegate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch.export import ExportedProgram

from ggml_delegate.node_view import Constants
from ggml_delegate.preprocess import GgmlBackend
from ggml_delegate.recurrent_ops import WHOLE
from ggml_delegate.registry import check_node, preserved_ops
from orchestrator.backends.base import Candidate, NodeFilter, Rejection, Support
from orchestrator.graph.queries import compute_nodes, constant_nodes


class GgmlDelegate:
    """The ggml delegate: every supported node is a candidate of its own."""

    name = "ggml"
    backend_id = GgmlBackend.__name__
    converts_dim_orders = True  # see ChannelsLastPass

    def available(self) -> str | None:
        """Return None: the delegate is installed together with this package."""
        return None

    def propose(self, ep: ExportedProgram) -> Support:
        """Ask the op rules about every node."""
        known, fixed = Constants(ep), constant_nodes(ep)
        candidates, rejections = [], []
        for node in compute_nodes(ep):
            reason = check_node(node, ep, known)
            if reason is None:
                weights = tuple(arg for arg in node.all_input_nodes if arg in fixed)
                candidates.append(Candidate((node,), weights))
            else:
                rejections.append(Rejection(node, reason))
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Return the ops that have a rule of their own, filtered by that rule."""
        known = Constants(ep)
        return [*preserved_ops(), *WHOLE], lambda node: check_node(node, ep, known) is None

    def compile_specs(self) -> list[CompileSpec]:
        """Return no options: ggml's threads are set at load time."""
        return []
