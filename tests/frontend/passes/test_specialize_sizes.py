"""Sizes that are symbols for one number."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

from orchestrator.frontend.passes import specialize_sizes


def _exported(model: nn.Module, *sizes: int) -> ExportedProgram:
    auto = {dim: Dim.AUTO(min=1, max=40) for dim in range(len(sizes))}
    return export(model, (torch.randn(sizes),), dynamic_shapes=(auto,))


def _shape(program: ExportedProgram) -> tuple[object, ...]:
    node = next(node for node in program.graph.nodes if node.name == "input")
    return tuple(node.meta["val"].shape)


def test_channels_are_a_number_afterwards() -> None:
    program = _exported(nn.Conv1d(3, 6, 3), 4, 3, 20)
    assert isinstance(_shape(program)[1], torch.SymInt)
    batch, channels, length = _shape(specialize_sizes(program))
    assert channels == 3
    assert isinstance(channels, int)
    assert isinstance(batch, torch.SymInt)
    assert isinstance(length, torch.SymInt)
    assert isinstance(_shape(program)[1], torch.SymInt)  # left as it was


def test_the_program_computes_the_same() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval()
    program = specialize_sizes(_exported(model, 4, 8))
    for rows in (2, 4, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(program.module()(x), model(x))


def test_dynamic_sizes_alone_are_left_alone() -> None:
    shapes = ({0: Dim("n", min=2, max=40)},)
    program = export(nn.Linear(8, 4), (torch.randn(4, 8),), dynamic_shapes=shapes)
    assert specialize_sizes(program) is program
