"""ShuffleNetV2 (Ma et al. 2018, "Practical Guidelines for Efficient CNN Architecture Design")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import ConvNorm, PooledClassifier
from .spec import image_model


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` blocks of channels; [batch, channels, height, width] to the same."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class Unit(nn.Module):
    """Splits the channels, transforms one half, joins and shuffles (figure 3 c and d)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.halves = stride == 1
        source = half if self.halves else in_channels
        self.branch = nn.Sequential(
            ConvNorm(source, half),
            ConvNorm(half, half, 3, stride=stride, groups=half, activation=None),
            ConvNorm(half, half),
        )
        self.shortcut: nn.Module = nn.Identity()
        if not self.halves:
            self.shortcut = nn.Sequential(
                ConvNorm(source, source, 3, stride=stride, groups=source, activation=None),
                ConvNorm(source, half),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, height', width']."""
        left, right = x.chunk(2, dim=1) if self.halves else (x, x)
        joined = torch.cat((self.shortcut(left), self.branch(right)), dim=1)
        return channel_shuffle(joined, 2)


class ShuffleNetV2(PooledClassifier):
    """Classifies pictures; the defaults are the paper's 1x network."""

    def __init__(
        self,
        widths: Sequence[int] = (116, 232, 464),
        units: Sequence[int] = (4, 8, 4),
        last: int = 1024,
        classes: int = 1000,
    ) -> None:
        channels = 24
        features = nn.Sequential(ConvNorm(3, channels, 3, stride=2), nn.MaxPool2d(3, 2, padding=1))
        for width, count in zip(widths, units, strict=True):
            for index in range(count):
                features.append(Unit(channels, width, 2 if index == 0 else 1))
                channels = width
        features.append(ConvNorm(channels, last))
        super().__init__(features, nn.Linear(last, classes))


SPECS = (
    image_model(
        "shufflenet_v2",
        ShuffleNetV2,
        224,
        small=(lambda: ShuffleNetV2((48, 96), (2, 2), 64, 50), 64),
    ),
)
