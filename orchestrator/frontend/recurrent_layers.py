"""Which recurrent layers of a program are preserved, and which are unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.recurrent_ops import DynamicStepsError, keep_recurrent_layers, recurrent_op
from orchestrator.frontend.errors import ModelError
from orchestrator.graph.queries import compute_nodes
from orchestrator.planner import PlannerError


def with_recurrent_layers(
    program: ExportedProgram,
    wanted: Callable[[Node], bool],
    wanted_by_any: Callable[[Node], bool],
    backends: Sequence[str],
) -> ExportedProgram:
    """Return an ATen-dialect program whose recurrent layers are preserved where backends want it.

    A loop is not unrolled only to see what a plan without the backend that wants it would cost:
    every step is some 30 nodes per layer and direction, and lowering would take minutes.

    Args:
        program: as exported; it is kept as it is.
        wanted: whether a backend that may be planned with wants a layer.
        wanted_by_any: whether any of the backends does.
        backends: their names.

    Raises:
        ModelError: a layer with a dynamic number of steps that no backend wants.
        PlannerError: a layer that only a backend wants which may not be planned with.
    """
    for node in compute_nodes(program):
        if recurrent_op(node) is not None and wanted_by_any(node) and not wanted(node):
            raise PlannerError(
                f"{node.name} ({recurrent_op(node)}) would be unrolled step by step; plans for a "
                "part of the backends preserve it"
            )
    try:
        return keep_recurrent_layers(program, wanted)
    except DynamicStepsError as error:
        raise ModelError(
            f"{error}: of the backends here ({', '.join(backends)}) none takes this layer. "
            "Let ggml have it (float32, in eval mode, with weights that are parameters), or export "
            "it with a fixed number of steps"
        ) from error
