"""MobileNetV3 (Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .layers import ConvNorm, PooledClassifier, SqueezeExcite, round_channels
from .spec import image_model


class Row(NamedTuple):
    """One line of the paper's tables."""

    kernel: int
    hidden: int
    out: int
    squeeze: bool
    swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class Block(nn.Module):
    """Inverted residual with optional squeeze-and-excite between the last two convolutions."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        act = nn.Hardswish if row.swish else nn.ReLU
        hidden = row.hidden
        self.shortcut = row.stride == 1 and in_channels == row.out
        self.layers = nn.Sequential()
        if hidden != in_channels:
            self.layers.append(ConvNorm(in_channels, hidden, activation=act))
        depthwise = ConvNorm(
            hidden, hidden, row.kernel, stride=row.stride, groups=hidden, activation=act
        )
        self.layers.append(depthwise)
        if row.squeeze:
            reduced = round_channels(hidden / 4)
            self.layers.append(SqueezeExcite(hidden, reduced, nn.ReLU, nn.Hardsigmoid))
        self.layers.append(ConvNorm(hidden, row.out, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, row.out, height', width']."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNetV3(PooledClassifier):
    """Classifies pictures.

    Args:
        rows: The blocks.
        hidden: Width of the head's hidden layer.
        classes: Number of classes.
    """

    def __init__(self, rows: tuple[Row, ...], hidden: int, classes: int = 1000) -> None:
        channels = 16
        features = nn.Sequential(ConvNorm(3, channels, 3, stride=2, activation=nn.Hardswish))
        for row in rows:
            features.append(Block(channels, row))
            channels = row.out
        last = 6 * channels
        features.append(ConvNorm(channels, last, activation=nn.Hardswish))
        head = nn.Sequential(
            nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, classes)
        )
        super().__init__(features, head)


SPECS = (
    image_model(
        "mobilenet_v3_small",
        lambda: MobileNetV3(SMALL, 1024),
        224,
        small=(lambda: MobileNetV3(SMALL[:4], 64, 50), 64),
    ),
    image_model(
        "mobilenet_v3_large",
        lambda: MobileNetV3(LARGE, 1280),
        224,
        small=(lambda: MobileNetV3(LARGE[:8], 64, 50), 64),
    ),
)
