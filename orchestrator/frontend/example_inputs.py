"""Inputs to run an exported program on when it is timed."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from orchestrator.graph.queries import expected_shape


def example_leaves(program: ExportedProgram) -> list[Any]:
    """Return the flat inputs that a program was exported with, or zeros of their sizes."""
    if program.example_inputs is not None:
        return list(pytree.tree_leaves(program.example_inputs))
    names = set(program.graph_signature.user_inputs)
    values = (node.meta["val"] for node in program.graph.nodes if node.name in names)
    return [_like(value) for value in values]


def _like(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros(expected_shape(value), dtype=value.dtype)
    return value
