"""Interpolation, pixel shuffling and rolling on ggml equal eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812

from tests.harness.ops import check_op


def picture(*sizes: int) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


CASES: list[dict[str, Any]] = [
    {"size": (14, 10)},
    {"size": (3, 13)},
    {"size": (1, 1)},
    {"scale_factor": 2},
    {"scale_factor": (2.5, 1.3)},
    {"scale_factor": 0.6},
    {"scale_factor": 1.7, "recompute_scale_factor": True},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nearest(case: dict[str, Any]) -> None:
    check_op(lambda x: F.interpolate(x * 2, mode="nearest", **case), [picture(2, 3, 7, 5)])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bilinear(case: dict[str, Any], align_corners: bool) -> None:
    check_op(
        lambda x: F.interpolate(x * 2, mode="bilinear", align_corners=align_corners, **case),
        [picture(2, 19, 7, 5)],
    )


def test_of_channels_last_and_after_a_convolution() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(5, 8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = F.relu(self.conv(x))
            return F.interpolate(y, scale_factor=2.0), F.interpolate(x, (9, 9), mode="bilinear")

    check_op(Model(), [picture(1, 5, 6, 7).to(memory_format=torch.channels_last)])


def test_dynamic_sizes() -> None:
    n, h = Dim("n", min=1, max=4), Dim("h", min=2, max=20)
    check_op(
        lambda x: (
            F.interpolate(x, scale_factor=2.0),
            F.interpolate(x, scale_factor=2.0, mode="bilinear"),
            F.interpolate(x, size=(11, 6), mode="bilinear", align_corners=True),
        ),
        [picture(2, 3, 7, 5)],
        dynamic_shapes={"args": ({0: n, 2: h},)},
        more_inputs=[[picture(1, 3, 2, 5)], [picture(4, 3, 20, 5)]],
    )


def test_pixel_shuffle() -> None:
    check_op(
        lambda x: (
            F.pixel_shuffle(x * 2, 2),
            F.pixel_unshuffle(x[:, :, :6, :4] * 2, 2),
            F.pixel_shuffle(x[0] * 2, 2),
        ),
        [picture(2, 8, 7, 5)],
    )


def test_roll() -> None:
    check_op(
        lambda x: (
            (x * 2).roll((2, -1), (1, 2)),
            (x * 2).roll(9, 3),
            (x * 2).roll(0, 0),
            (x * 2).transpose(1, 3).roll((-3, 1), (-1, 1)),
            (x > 0).roll(1, 1),
        ),
        [picture(2, 6, 7, 5)],
    )
