"""EfficientNet-B0 (Tan and Le 2019, table 1)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .layers import ConvNorm, PooledClassifier, SqueezeExcite
from .spec import image_model


class Stage(NamedTuple):
    """One line of the paper's table."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    blocks: int


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class MBConv(nn.Module):
    """Inverted residual with squeeze-and-excite; the squeeze is a quarter of the block's input."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            ConvNorm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcite(hidden, max(1, in_channels // 4), nn.SiLU, nn.Sigmoid),
            ConvNorm(hidden, out_channels, activation=None),
        )
        if expansion != 1:
            self.layers.insert(0, ConvNorm(in_channels, hidden, activation=nn.SiLU))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, height', width']."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class EfficientNet(PooledClassifier):
    """Classifies pictures."""

    def __init__(
        self, stages: tuple[Stage, ...] = B0, last: int = 1280, classes: int = 1000
    ) -> None:
        channels = 32
        features = nn.Sequential(ConvNorm(3, channels, 3, stride=2, activation=nn.SiLU))
        for stage in stages:
            for block in range(stage.blocks):
                stride = stage.stride if block == 0 else 1
                features.append(
                    MBConv(channels, stage.channels, stage.kernel, stride, stage.expansion)
                )
                channels = stage.channels
        features.append(ConvNorm(channels, last, activation=nn.SiLU))
        super().__init__(features, nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes)))


SPECS = (
    image_model(
        "efficientnet_b0", EfficientNet, 224, small=(lambda: EfficientNet(B0[:3], 64, 50), 64)
    ),
)
