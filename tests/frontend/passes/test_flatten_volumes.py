"""Convolutions and pools of volumes run as those of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional

from orchestrator import lower
from orchestrator.frontend.passes import flatten_volumes

VOLUME = (2, 4, 6, 9, 8)

LAYERS: dict[str, nn.Module] = {
    "conv": nn.Conv3d(4, 6, 3),
    "conv, one slice": nn.Conv3d(4, 6, (1, 3, 3), padding=1),
    "conv, everything": nn.Conv3d(
        4, 8, (3, 2, 1), stride=(2, 1, 3), padding=(2, 1, 0), dilation=(2, 1, 1), groups=2
    ),
    "depthwise conv": nn.Conv3d(4, 4, 3, padding=1, groups=4, bias=False),
    "conv, batch norm": nn.Sequential(nn.Conv3d(4, 5, 2), nn.BatchNorm3d(5), nn.ReLU()),
    "avg pool": nn.AvgPool3d(2),
    "avg pool, padded": nn.AvgPool3d((3, 2, 4), stride=(1, 2, 3), padding=(1, 0, 2)),
    "avg pool of what is there": nn.AvgPool3d(3, 2, 1, count_include_pad=False),
    "max pool": nn.MaxPool3d(2),
    "max pool, everything": nn.MaxPool3d((3, 2, 2), (2, 1, 2), (1, 1, 0), (1, 2, 1), False, True),
    "local response norm": nn.LocalResponseNorm(3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_volumes_equal_eager(name: str) -> None:
    model = nn.Sequential(nn.ReLU(), LAYERS[name]).eval()
    x = torch.randn(VOLUME)
    program = lower(model, (x,), strategy="greedy")
    assert not program.report.methods[0].missing_kernels
    for batch in (x, torch.randn(VOLUME)):
        torch.testing.assert_close(program(batch), model(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["conv", "depthwise conv", "avg pool, padded", "max pool", "local response norm"]
)
def test_dynamic_batches_heights_and_widths_stay_dynamic(name: str) -> None:
    model = LAYERS[name].eval()
    sizes = {0: Dim("n", min=1, max=4), 3: Dim("h", min=6, max=12), 4: Dim("w", min=6, max=12)}
    program = lower(model, (torch.randn(VOLUME),), dynamic_shapes=(sizes,), strategy="greedy")
    for shape in (VOLUME, (1, 4, 6, 6, 12), (4, 4, 6, 11, 7)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


class _Divided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool3d(x, 2, divisor_override=3)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (_Divided(), torch.randn(VOLUME)),
        (nn.Conv3d(4, 6, 3), torch.randn(VOLUME[1:])),
        (nn.ConvTranspose3d(4, 6, 3), torch.randn(VOLUME)),
        (nn.Conv2d(4, 6, 3), torch.randn(1, 4, 5, 6)),
    ],
)
def test_others_stay(model: nn.Module, inputs: Any) -> None:
    program = export(model.eval(), (inputs,))
    assert flatten_volumes(program) is program
