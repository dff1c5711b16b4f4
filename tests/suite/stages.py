"""How flows lower and run: through ExecuTorch's own call, or just as `lower()` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from executorch.backends.test.harness.stages import Serialize, ToEdgeTransformAndLower
from executorch.exir.backend.partitioner import Partitioner
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from ggml_delegate.native import NativeProgram
from ggml_delegate.passes import apply_passes
from orchestrator.edge import edge_compile_config
from orchestrator.flow import to_edge_with
from orchestrator.kernel_dim_orders import make_kernels_contiguous
from orchestrator.open_sizes import open_sizes_kept
from orchestrator.partitioner import OrchestratorPartitioner

PartitionerMaker = Callable[[Set[torch._ops.OpOverload]], OrchestratorPartitioner]
"""Makes a partitioner, given the ops to decompose whatever a backend would like."""


class Lower(ToEdgeTransformAndLower):  # type: ignore[misc]  # executorch is untyped
    """ExecuTorch's own call, with one partitioner."""

    def __init__(self, partitioner: Callable[[], Partitioner]) -> None:
        super().__init__(partitioner, edge_compile_config=edge_compile_config())


class RewriteAndLower(Lower):
    """ExecuTorch's own call on a program that this project's passes have rewritten."""

    def run(self, artifact: ExportedProgram, *args: Any, **kwargs: Any) -> None:
        """Lowers the program as this project's passes write it, its sizes as open as they are."""
        program = apply_passes(artifact)
        with open_sizes_kept([program]):
            super().run(program, *args, **kwargs)


class LowerAsWeDo(ToEdgeTransformAndLower):  # type: ignore[misc]
    """The way that a program takes in `lower()`, with any partitioner."""

    def __init__(self, make_partitioner: PartitionerMaker) -> None:
        super().__init__()
        self._make = make_partitioner

    def run(
        self, artifact: ExportedProgram, inputs: Any = None, generate_etrecord: bool = False
    ) -> None:
        """Lowers the program."""
        programs = {"forward": artifact}
        with torch.no_grad(), open_sizes_kept(programs.values()):
            edge, _ = to_edge_with(
                programs,
                lambda _, decompose: self._make(decompose),
                generate_etrecord=generate_etrecord,
            )
            make_kernels_contiguous(edge.exported_program("forward"))
        self.edge_dialect_program = edge


class RunNatively(Serialize):  # type: ignore[misc]
    """Runs programs in this project's runtime, not in ExecuTorch's Python module."""

    def run_artifact(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs the program once; its results are flattened."""
        flat = pytree.tree_leaves(tuple(inputs))
        return NativeProgram(self.buffer).run("forward", flat, relayout=True)
