"""Passes of XNNPACK's that are left out find nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from torch import nn
from torch.fx import GraphModule

import orchestrator
from orchestrator.backends.xnnpack.passes import PATTERN_OPS


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
