"""Passes of XNNPACK's that are left out find nothing; its costs hold for the ones that are ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from torch import nn
from torch.fx import GraphModule

import orchestrator
from orchestrator.backends import find_backend
from orchestrator.backends.xnnpack import expansions, passes
from orchestrator.backends.xnnpack.passes import PATTERN_OPS
from tests.harness.fakes import edge_program


def _ops(module: GraphModule) -> set[Any]:
    return {node.target for node in module.graph.nodes}


def test_each_pattern_has_the_op_that_is_looked_for() -> None:
    patterns = {
        ConvertToSDPAPass: sdpa.get_graphs(),
        ConvertToUpsampleBilinear2d: bilinear_2d.get_graphs(),
    }
    assert patterns.keys() == PATTERN_OPS.keys()
    for kind, graphs in patterns.items():
        assert graphs
        assert all(PATTERN_OPS[kind] in _ops(each) for each in graphs)


def test_patterns_are_exported_only_for_what_may_match(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(sdpa, "get_graphs", lambda: asked.append("attention") or [])
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", lambda: asked.append("bilinear") or {})
    x = torch.randn(1, 4, 6, 6)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Softmax(-1)).eval()
    orchestrator.lower(model, (x,), backends=["xnnpack"])
    assert asked == []
    larger = nn.Upsample(scale_factor=2, mode="bilinear")
    orchestrator.lower(larger, (x,), backends=["xnnpack"], strategy="greedy")
    assert asked == ["bilinear"]


def test_an_edit_of_a_pass_of_ours_voids_the_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, file = ModuleType("edited"), tmp_path / "edited.py"
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    edited = type("Edited", (), {"__module__": module.__name__})
    monkeypatch.setattr(passes, "_FIRST", {**passes._FIRST, edited: bool})
    versions = []
    for text in ("first", "second", "first"):
        file.write_text(text)
        versions.append(find_backend("xnnpack").versions())
    assert versions[0] == versions[2] != versions[1]


def test_ours_run_first_and_once_however_many_delegates_there_are() -> None:
    for _ in range(2):
        find_backend("xnnpack")
    kinds = XNNPACKPassManager(edge_program(nn.ReLU(), torch.ones(2))).passes
    ours = list(passes._FIRST)
    assert kinds[: len(ours)] == ours == [kind for kind in kinds if kind in ours]


def test_in_an_executorch_that_nobody_read_nothing_is_patched_or_expanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (passes, expansions):
        monkeypatch.setattr(module, "is_known_executorch", lambda: False)
    assert list(passes._patches()) == []
    program = orchestrator.lower(nn.SiLU(), (torch.ones(4),), backends=["xnnpack"])
    torch.testing.assert_close(program(torch.ones(4)), nn.SiLU()(torch.ones(4)))
    (method,) = program.report.methods
    assert "aten.silu.default" not in {op for part in method.partitions for op in part.ops}
