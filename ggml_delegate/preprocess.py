"""GgmlBackend: turns one delegated partition into bytes and named weights."""

from __future__ import annotations

from typing import Any

from executorch.exir.backend.backend_details import BackendDetails, PreprocessResult
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch.export import ExportedProgram

from ggml_delegate import ir
from ggml_delegate.builder import Builder


class GgmlBackend(BackendDetails):  # type: ignore[misc]
    """The ahead-of-time side of the runtime's "GgmlBackend"."""

    @classmethod
    def copy_exported_program_for_preprocess(
        cls, edge_program: ExportedProgram, compile_specs: list[CompileSpec]
    ) -> ExportedProgram:
        """The program itself: preprocess only reads it, so weights are not copied."""
        return edge_program

    @staticmethod
    def preprocess(
        edge_program: ExportedProgram, compile_specs: list[CompileSpec]
    ) -> PreprocessResult:
        """Lowers one partition.

        Args:
            edge_program: the partition's nodes, all accepted by check_node.
            compile_specs: none are known.

        Raises:
            LoweringError: when a node cannot be lowered; names it.
            ValueError: on an unknown compile spec.
        """
        if compile_specs:
            raise ValueError(f"ggml has no compile spec {compile_specs[0].key!r}")
        builder = Builder(edge_program)
        program = builder.build()
        return PreprocessResult(
            processed_bytes=ir.serialize(program),
            debug_handle_map=_debug_handles(program),
            data_store_output=builder.named_data.get_named_data_store_output(),
        )


def _debug_handles(program: Any) -> dict[str, tuple[int, ...]]:
    """Name of an event in a profile -> debug handles of the nodes that it is about.

    This is how ExecuTorch's Inspector finds the source of what the runtime's tracer logged.
    """
    handles: dict[str, dict[int, None]] = {}
    for node in program.nodes:
        handles.setdefault(node.name, {}).update(dict.fromkeys(node.debugHandles))
    return {name: tuple(found) for name, found in handles.items()}
