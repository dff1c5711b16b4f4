"""The partitioner inside ExecuTorch's own flows: to_edge_transform_and_lower, and an export recipe.

python examples/export_recipe.py
"""

from __future__ import annotations

import torch
from executorch.devtools.backend_debug import get_delegation_info
from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower
from executorch.export import ExportRecipe, LoweringRecipe, export
from torch import nn

from orchestrator import OrchestratorPartitioner
from orchestrator.edge import edge_compile_config

BACKENDS = ["ggml", "xnnpack"]


def lower_plainly(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> EdgeProgramManager:
    """Lowers as any ExecuTorch user does, with this project's partitioner in the list."""
    return to_edge_transform_and_lower(
        torch.export.export(model, inputs),
        partitioner=[OrchestratorPartitioner(BACKENDS)],
        compile_config=edge_compile_config(),
    )


def recipe() -> ExportRecipe:
    """A recipe for executorch.export: what to export with, apart from the model."""
    return ExportRecipe(
        name="ggml and XNNPACK",
        lowering_recipe=LoweringRecipe(
            partitioners=[OrchestratorPartitioner(BACKENDS)],
            edge_compile_config=edge_compile_config(),
        ),
        strict=False,
    )


def export_by_recipe(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
    """Lowers through executorch.export; returns the .pte."""
    session = export(model, example_inputs=[inputs], export_recipe=recipe())
    return bytes(session.get_pte_buffer())


def main() -> None:
    """Lowers a small model both ways."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = (torch.randn(1, 3, 32, 32),)
    edge = lower_plainly(model.eval(), inputs)
    print(get_delegation_info(edge.exported_program().graph_module).get_summary())
    print(f"by recipe: a program of {len(export_by_recipe(model, inputs))} bytes")


if __name__ == "__main__":
    main()
