"""Norms that ExecuTorch's kernels compute: numbers far from 0 cost no accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional

from orchestrator import lower
from orchestrator.edge import edge_compile_config
from orchestrator.native import NativeProgram
from orchestrator.versions import executorch_version
from tests.harness.ops import relative_error

FAR = 1000.0
# What float32 itself loses of numbers around 1000 that differ by 1; kernels alone are 0.1 off.
TOLERANCE = 2e-4


class Norm(nn.Module):
    def __init__(self, norm: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Any:
        return self.norm(x)


def _exact(norm: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    result = norm(x.double())
    return (result if isinstance(result, Tensor) else result[0]).float()


def far(*sizes: int) -> Tensor:
    return torch.randn(sizes) + FAR


NORMS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "layer": (lambda x: functional.layer_norm(x, (24,)), (2, 5, 24)),
    "layer of images": (lambda x: functional.layer_norm(x, (3, 4, 5)), (2, 3, 4, 5)),
    "layer of all": (lambda x: functional.layer_norm(x, (30,)), (30,)),
    "group": (lambda x: functional.group_norm(x, 3), (2, 6, 5, 4)),
    "group of rows": (lambda x: functional.group_norm(x, 2), (33, 32)),
    "group of volumes": (lambda x: functional.group_norm(x, 2), (1, 4, 3, 4, 5)),
    "instance": (functional.instance_norm, (2, 3, 6, 7)),
    "instance of signals": (functional.instance_norm, (2, 3, 25)),
    "batch": (
        lambda x: functional.batch_norm(x, None, None, training=True),
        (4, 3, 5, 5),
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_numbers_far_from_0(name: str) -> None:
    norm, sizes = NORMS[name]
    x = far(*sizes)
    program = lower(Norm(norm), (torch.randn(sizes),), backends=["xnnpack"])
    assert not program.report.methods[0].partitions
    assert relative_error(program(x), _exact(norm, x)) <= TOLERANCE


@pytest.mark.parametrize("name", ["layer", "group", "batch"])
def test_executorch_has_not_mended_it(name: str) -> None:
    """Once it has, `orchestrator.kernels.centered_norms` can go."""
    norm, sizes = NORMS[name]
    x = far(*sizes)
    exported = export(Norm(norm), (x,))
    edge = to_edge_transform_and_lower(exported, compile_config=edge_compile_config())
    (got,) = NativeProgram(edge.to_executorch().buffer).run("forward", [x])
    assert relative_error(got, _exact(norm, x)) > 10 * TOLERANCE, f"{executorch_version()} has"


def test_weights_and_biases() -> None:
    layers = nn.Sequential(nn.LayerNorm(12), nn.GroupNorm(2, 4))
    for layer in layers:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    x = far(3, 4, 12)
    got = lower(layers, (x,), backends=["xnnpack"])(x)
    assert relative_error(got, layers.double()(x.double()).float()) <= TOLERANCE


def test_dynamic_sizes() -> None:
    def norm(x: Tensor) -> Tensor:
        return functional.group_norm(x, 2)

    sizes = {0: Dim("n", max=5), 2: Dim("h", min=2, max=20), 3: Dim("w", min=2, max=20)}
    program = lower(
        Norm(norm), (torch.randn(2, 4, 6, 7),), backends=["xnnpack"], dynamic_shapes=(sizes,)
    )
    for shape in ((1, 4, 20, 3), (5, 4, 2, 2), (2, 4, 6, 7)):
        x = far(*shape)
        assert relative_error(program(x), _exact(norm, x)) <= TOLERANCE


def test_channels_last() -> None:
    x = far(2, 4, 5, 6).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    program = lower(model, (x,), backends=["xnnpack"])
    assert relative_error(program(x), model.double()(x.double()).float()) <= TOLERANCE


def test_branches() -> None:
    def norm(x: Tensor) -> Tensor:
        return torch.cond(
            x.mean() > 0,
            lambda x: functional.layer_norm(x, (8,)),
            lambda x: functional.layer_norm(x, (4, 8)),
            (x,),
        )

    program = lower(Norm(norm), (torch.randn(3, 4, 8),), backends=["xnnpack"])
    for x, branch in (
        (far(3, 4, 8), lambda x: functional.layer_norm(x, (8,))),
        (-far(3, 4, 8), lambda x: functional.layer_norm(x, (4, 8))),
    ):
        assert relative_error(program(x), _exact(branch, x)) <= TOLERANCE


def test_half_types() -> None:
    x = (torch.randn(3, 32) + 100).bfloat16()
    program = lower(Norm(lambda x: functional.layer_norm(x, (32,))), (x,), backends=["xnnpack"])
    exact = functional.layer_norm(x.double(), (32,))
    assert relative_error(program(x).float(), exact.float()) <= 2.0**-7


def test_a_mean_that_is_read_stays() -> None:
    def norm(x: Tensor) -> tuple[Tensor, ...]:
        return torch.native_layer_norm(x, (16,), None, None, 1e-5)

    x = torch.randn(3, 16) + 3
    program = lower(Norm(norm), (x,), backends=["xnnpack"])
    for got, want in zip(program(x), norm(x), strict=True):
        assert relative_error(got, want) <= 1e-5
