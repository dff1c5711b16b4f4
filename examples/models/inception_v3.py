"""Inception-v3 (Szegedy et al. 2016, "Rethinking the Inception Architecture"), one head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import PooledClassifier
from .spec import image_model

Kernel = int | tuple[int, int]


class Conv(nn.Sequential):
    """Convolution, BatchNorm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Kernel = 1,
        stride: int = 1,
        padding: Kernel = 0,
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(out_channels, eps=0.001),
            nn.ReLU(),
        )


class Branches(nn.Module):
    """Joins the channels of several branches over one input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the branches' outputs, joined along axis 1."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 average without change of size, then a 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), Conv(in_channels, out_channels))


def grid_35(channels: int, pool: int) -> Branches:
    """Figure 5; gives 224 + `pool` channels."""
    return Branches(
        Conv(channels, 64),
        nn.Sequential(Conv(channels, 48), Conv(48, 64, 5, padding=2)),
        nn.Sequential(Conv(channels, 64), Conv(64, 96, 3, padding=1), Conv(96, 96, 3, padding=1)),
        pooled(channels, pool),
    )


def reduce_35(channels: int) -> Branches:
    """35x35 to 17x17; gives 480 + `channels` channels."""
    return Branches(
        Conv(channels, 384, 3, 2),
        nn.Sequential(Conv(channels, 64), Conv(64, 96, 3, padding=1), Conv(96, 96, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def row(in_channels: int, out_channels: int) -> Conv:
    """A 1x7 convolution."""
    return Conv(in_channels, out_channels, (1, 7), padding=(0, 3))


def column(in_channels: int, out_channels: int) -> Conv:
    """A 7x1 convolution."""
    return Conv(in_channels, out_channels, (7, 1), padding=(3, 0))


def grid_17(channels: int, inner: int) -> Branches:
    """Figure 6; gives 768 channels."""
    return Branches(
        Conv(channels, 192),
        nn.Sequential(Conv(channels, inner), row(inner, inner), column(inner, 192)),
        nn.Sequential(
            Conv(channels, inner),
            column(inner, inner),
            row(inner, inner),
            column(inner, inner),
            row(inner, 192),
        ),
        pooled(channels, 192),
    )


def reduce_17(channels: int) -> Branches:
    """17x17 to 8x8; gives 512 + `channels` channels."""
    return Branches(
        nn.Sequential(Conv(channels, 192), Conv(192, 320, 3, 2)),
        nn.Sequential(Conv(channels, 192), row(192, 192), column(192, 192), Conv(192, 192, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def split_3x3(channels: int) -> Branches:
    """1x3 and 3x1 side by side; gives 768 channels."""
    return Branches(
        Conv(channels, 384, (1, 3), padding=(0, 1)), Conv(channels, 384, (3, 1), padding=(1, 0))
    )


def grid_8(channels: int) -> Branches:
    """Figure 7; gives 2048 channels."""
    return Branches(
        Conv(channels, 320),
        nn.Sequential(Conv(channels, 384), split_3x3(384)),
        nn.Sequential(Conv(channels, 448), Conv(448, 384, 3, padding=1), split_3x3(384)),
        pooled(channels, 192),
    )


def stem() -> nn.Sequential:
    """299x299 to 35x35; gives 192 channels."""
    return nn.Sequential(
        Conv(3, 32, 3, 2),
        Conv(32, 32, 3),
        Conv(32, 64, 3, padding=1),
        nn.MaxPool2d(3, 2),
        Conv(64, 80),
        Conv(80, 192, 3),
        nn.MaxPool2d(3, 2),
    )


def inception_v3(classes: int = 1000) -> nn.Module:
    """Classifies pictures of 299x299."""
    features = nn.Sequential(
        stem(),
        *(grid_35(192, 32), grid_35(256, 64), grid_35(288, 64), reduce_35(288)),
        *(grid_17(768, 128), grid_17(768, 160), grid_17(768, 160), grid_17(768, 192)),
        *(reduce_17(768), grid_8(1280), grid_8(2048)),
    )
    return PooledClassifier(features, nn.Sequential(nn.Dropout(), nn.Linear(2048, classes)))


def small_inception(classes: int = 50) -> nn.Module:
    """One block of each of the first two grids."""
    features = nn.Sequential(
        Conv(3, 32, 3, 2), nn.MaxPool2d(3, 2), grid_35(32, 32), reduce_35(256), grid_17(736, 32)
    )
    return PooledClassifier(features, nn.Sequential(nn.Dropout(), nn.Linear(768, classes)))


SPECS = (image_model("inception_v3", inception_v3, 299, small=(small_inception, 75)),)
