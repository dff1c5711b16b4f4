"""ggml, through this project's delegate."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch.export import ExportedProgram

from ggml_delegate.in_place import in_place_results
from ggml_delegate.node_view import Constants
from ggml_delegate.ops.fake_quantize import fake_quantized
from ggml_delegate.ops.quantized_weight import is_stored_weight
from ggml_delegate.preprocess import GgmlBackend
from ggml_delegate.recurrent_ops import PRESERVED
from ggml_delegate.registry import MAX_RANK, check_node, preserved_ops
from orchestrator.backends.base import (
    Backend,
    Candidate,
    Estimates,
    NodeFilter,
    PrivateMemory,
    Rates,
    Rejection,
    Support,
)
from orchestrator.graph.queries import compute_nodes, constant_nodes
from orchestrator.native import has_byte_products, has_tiles
from orchestrator.planner import Layout
from orchestrator.versions import digest_of, executorch_version

_FLOATS = "use float32 activations: model.float() before exporting"
# Of rows that become integers in every run, on processors with AMX: as XNNPACK's, so that one call
# is cheaper than several.
_BYTES_BY_TILES = Rates(250.0, 16.0, 350.0, 0.35)
# The same with VNNI: 0.75 to 1.05 of XNNPACK's with weights of 8 bits, 0.9 to 2 with 4.
_BYTES = Rates(210.0, 16.0, 350.0, 0.35)
_HALF_BYTES = Rates(250.0, 16.0, 350.0, 0.35)


class GgmlDelegate(Backend):
    """The ggml delegate: every supported node is a candidate of its own."""

    name = "ggml"
    backend_id = GgmlBackend.__name__
    converts_dim_orders = True
    is_proven = True
    takes_grouped_integers = True
    # Measured by benchmarks/estimates.py.
    estimates = Estimates(
        {
            "product": Rates(80.0, 16.0, 200.0, 0.25),
            # Without instructions for bytes; with them `__init__` takes the rates above.
            "int8 product": Rates(100.0, 16.0, 350.0, 0.35),
            "depthwise": Rates(36.0, 16.0, 200.0, 0.35),
            "other": Rates(16.0, 16.0, 150.0, 0.6),
        },
        call_ns=1_000.0,
        half=1.05,
        integers_per_ns=12.0,
        integer_bytes=9.0,  # int32 inside: one byte and four, and four again
        table_bytes=16.0,  # a row is a column of a panel, which has 16
        updates_in_place=True,
    )
    # Weights are read where the file is mapped: 6.5 MB for 346 MB of ViT-B/16.
    private_memory = PrivateMemory(per_weight_byte=0.02)
    remedies: ClassVar[Mapping[str, str]] = {
        "op": "write it with ops that ggml has, or add a rule for it",
        "rank": f"reshape to rank {MAX_RANK} or less around it",
        "unbatched": "add a batch dimension (unsqueeze) before it",
        "volume": "write it as 2d convolutions over slices",
        "groups": "write it as one convolution per group",
        "integers": "compute it in float32: x.float() before it",
        "float64": "use float32: model.float() before exporting",
        "half": _FLOATS,
        "converts": "convert the input in an op of its own: x.to(dtype) before it",
        "run-time": "make it a number in the model's code",
        "computed": "make it a parameter or a buffer of the model",
        "dynamic": "export this size as a fixed one",
        "training": "call model.eval() before exporting",
        "empty": "leave the empty tensor out",
        "negative-index": "use an index counted from the start",
        "device": "move the model to the CPU before exporting",
    }

    def __init__(self) -> None:
        if has_tiles():
            self._take_rates({"int8 product": _BYTES_BY_TILES})
        elif has_byte_products():
            self._take_rates({"int8 product": _BYTES, "int4 product": _HALF_BYTES})

    def _take_rates(self, rates: Mapping[str, Rates]) -> None:
        self.estimates = replace(self.estimates, rates={**self.estimates.rates, **rates})

    def propose(self, ep: ExportedProgram) -> Support:
        """Ask the op rules about every node."""
        known, fixed = Constants(ep), constant_nodes(ep)
        candidates, rejections = [], []
        nodes = list(compute_nodes(ep))
        reasons = {node: check_node(node, ep, known) for node in nodes}
        taken = [node for node in nodes if reasons[node] is None]
        groups = {node: found.inner for node in taken if (found := fake_quantized(node))}
        # What goes with the node that reads it: integer weights, and what quantizes activations.
        inner = {node for group in groups.values() for node in group}
        inner |= {node for node in taken if is_stored_weight(node, known)}
        for node, reason in reasons.items():
            if reason is not None:
                rejections.append(Rejection(node, str(reason), reason.code))
            elif node not in inner:
                weights_of = (arg for arg in node.all_input_nodes if arg in inner)
                group = (*groups.get(node, weights_of), node)
                read = dict.fromkeys(arg for each in group for arg in each.all_input_nodes)
                weights = tuple(arg for arg in read if arg in fixed)
                candidates.append(Candidate(group, weights, divisible=len(group) == 1))
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Return the ops that have a rule of their own, filtered by that rule."""
        known = Constants(ep)
        return [*preserved_ops(), *PRESERVED], lambda node: check_node(node, ep, known) is None

    def takes_tables(self, ep: ExportedProgram) -> NodeFilter:
        """Return the rules' answer."""
        known = Constants(ep)
        return lambda node: check_node(node, ep, known) is None

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        """Return both layouts for images."""
        return tuple(Layout) if rank == 4 else (Layout.CONTIGUOUS,)

    def in_place_results(self, processed: bytes) -> Mapping[int, int]:
        """Return what the program declares: state of which it writes a part."""
        return in_place_results(processed)

    def versions(self) -> str:
        """Return ExecuTorch's version and a digest of both halves of the delegate."""
        return f"{executorch_version()}, ggml delegate {_digest()}"


@functools.cache
def _digest() -> str:
    import _ggml_delegate

    import ggml_delegate

    native, lowering = (Path(each.__path__[0]) for each in (_ggml_delegate, ggml_delegate))
    return digest_of([*sorted(native.glob("libggml_backend*")), *sorted(lowering.rglob("*.py"))])
