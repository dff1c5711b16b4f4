"""How layers are quantized, in words, and what results may be off by for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)

from examples.quantization import pt2e
from orchestrator.dry_run import edge_program
from orchestrator.frontend.export import as_programs
from orchestrator.graph.queries import compute_nodes
from orchestrator.graph.schemes import Allowed, allowed_errors, schemes, stored_bytes
from orchestrator.options import PlanOptions


def nodes_of(model: nn.Module, x: Tensor) -> list[Node]:
    program = as_programs(model, (x,))["forward"]
    edge = edge_program(program, ["ggml"], PlanOptions(strategy="greedy", tune="off"))
    return list(compute_nodes(edge))


def _layers() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()


def _with(config: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = _layers()
        quantize_(model, config)
        return model

    return make


X = torch.randn(3, 64)
_INT4, _GROUPS = torch.int4, PerGroup(32)
MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "static": (lambda: pt2e(_layers(), (X,)), "int8 activations (static), int8 weights"),
    "dynamic": (
        lambda: pt2e(_layers(), (X,), dynamic=True),
        "int8 activations (dynamic), int8 weights",
    ),
    "8da4w": (
        _with(
            Int8DynamicActivationIntxWeightConfig(weight_dtype=_INT4, weight_granularity=_GROUPS)
        ),
        "int8 activations (dynamic), int4 weights in groups of 32",
    ),
    "8da8w": (
        _with(
            Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int8, weight_granularity=PerAxis(0)
            )
        ),
        "int8 activations (dynamic), int8 weights",
    ),
    "4w": (_with(IntxWeightOnlyConfig(_INT4, _GROUPS)), "int4 weights in groups of 32"),
    "8w": (_with(IntxWeightOnlyConfig(torch.int8, PerAxis(0))), "int8 weights"),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_told_by_scheme(name: str) -> None:
    make, text = MODELS[name]
    found = schemes(nodes_of(make(), X))
    assert {str(scheme): count for scheme, count in found.items()} == {text: 2}


def test_layers_of_floats_have_none() -> None:
    assert schemes(nodes_of(_layers(), X)) == {}


def test_convolutions_and_embeddings() -> None:
    image = torch.randn(1, 3, 8, 8)
    static = nodes_of(pt2e(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (image,)), image)
    assert list(map(str, schemes(static))) == ["int8 activations (static), int8 weights"]
    table = nn.Sequential(nn.Embedding(10, 64)).eval()
    quantize_(
        table,
        IntxWeightOnlyConfig(_INT4, _GROUPS),
        lambda module, _: isinstance(module, nn.Embedding),
    )
    found = schemes(nodes_of(table, torch.tensor([1, 2])))
    assert list(map(str, found)) == ["int4 weights in groups of 32"]


def test_two_integers_of_4_bits_share_a_byte() -> None:
    def bytes_of(name: str) -> int:
        nodes = nodes_of(MODELS[name][0](), X)
        weights = {
            source
            for node in nodes
            for source in node.all_input_nodes
            if source.op == "placeholder" and source.meta["val"].dtype == torch.int8
        }
        return sum(
            map(stored_bytes, (each for each in weights if each.meta["val"].shape[-1] == 64))
        )

    elements = 64 * 64 + 64 * 32
    assert bytes_of("4w") == elements / 2
    assert bytes_of("8w") == elements


def _allowed(name: str) -> Allowed:
    nodes = nodes_of(MODELS[name][0](), X)
    return allowed_errors(nodes)[nodes[-1]]


def test_what_is_allowed_grows_with_the_layers() -> None:
    static = _allowed("static")
    assert static.dynamic == static.grouped == 0 and static.static >= 3 and static.step > 0
    assert _allowed("dynamic") == Allowed(dynamic=2, per_tensor=2)
    assert _allowed("8da4w") == Allowed(dynamic=2, grouped=2, rounded=2)
    assert _allowed("8w") == Allowed()


def test_of_ways_that_meet_the_longer_counts() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.three(self.two(x).relu())

    nodes = nodes_of(pt2e(Both(), (X,), dynamic=True), X)
    assert allowed_errors(nodes)[nodes[-1]].dynamic == 2


def test_errors_and_what_they_are_made_of() -> None:
    allowed = Allowed(dynamic=3, static=2, step=0.5, grouped=1, per_tensor=2)
    expected = 1e-4 + 3 * 2e-3 + 0.25 + 2 * 0.125 + 2 * 0.05
    assert allowed.error(10.0, 1e-4, 0.25, 0.125) == pytest.approx(expected)
    assert allowed.text(0.25) == "2 steps of 0.5, 3 layers of 0.002, 1 with scales by group of 0.25"
    assert allowed.text() == "2 steps of 0.5, 3 layers of 0.002"
    assert Allowed().error(0.0, 1e-4) == 1e-4
